"""Where pages of the admin are that lead to one another, and how addresses of strangers are shown on them."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator

from scraping.models import ScrapedImage, ScrapedPage, ScrapeJob

NOTHING = "\N{EN DASH}"
WEB = ("http://", "https://")


def found_url(model: type[ScrapedImage] | type[ScrapedPage], job: ScrapeJob, **chosen: str) -> str:
    """Return the list of the pictures or pages of a crawl, those of which a filter says so."""
    listed = reverse(f"admin:scraping_{model._meta.model_name}_changelist")
    return f"{listed}?{urlencode({'job': str(job.pk)} | chosen)}"


def host_url(host: str) -> str:
    """Return the page of a host."""
    return reverse("admin:scraping_hostrecord_change", args=[quote(host)])


def crawl_link(job: ScrapeJob | None) -> str:
    """Return a link to the page of a crawl."""
    if job is None:
        return NOTHING
    return format_html('<a href="{}">{}</a>', reverse("admin:scraping_scrapejob_change", args=[job.pk]), job)


def outward(url: str, *, longest: int = 1000) -> str:
    """Return a link to an address of the web, which is not told where its visitor comes from."""
    if not url:
        return NOTHING
    text = Truncator(url).chars(longest)
    if not url.startswith(WEB):
        return text
    return format_html('<a class="outward" href="{}" rel="noreferrer noopener nofollow">{}</a>', url, text)


def outward_list(urls: Iterable[Any], *, most: int) -> str:
    """Return links to some addresses, one below the other."""
    found = [str(url) for url in urls]
    lines = [format_html("<div>{}</div>", outward(url)) for url in found[:most]]
    if len(found) > most:
        lines.append(format_html("<div>and {} more</div>", len(found) - most))
    return format_html("{}" * len(lines), *lines) if lines else NOTHING
