"""Rows of crawls: what was asked for, what became of each address, and how hosts are to be treated."""

from scraping.models.hosts import HostRecord, SiteFile
from scraping.models.jobs import (
    ImageOutcome,
    PageOutcome,
    ScrapedImage,
    ScrapedPage,
    ScrapeJob,
    address_key,
    domain_key,
    in_domain,
)

__all__ = [
    "HostRecord",
    "ImageOutcome",
    "PageOutcome",
    "ScrapeJob",
    "ScrapedImage",
    "ScrapedPage",
    "SiteFile",
    "address_key",
    "domain_key",
    "in_domain",
]
