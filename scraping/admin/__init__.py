"""Crawls, what they found, and the hosts they ask, in the admin."""

from scraping.admin.crawls import ScrapeJobAdmin
from scraping.admin.found import ScrapedImageAdmin, ScrapedPageAdmin
from scraping.admin.hosts import HostRecordAdmin, SiteFileAdmin

__all__ = ["HostRecordAdmin", "ScrapeJobAdmin", "ScrapedImageAdmin", "ScrapedPageAdmin", "SiteFileAdmin"]
