"""What a crawler may tell, and the rows that are made of it. It reads other people's files, so it is believed nothing unseen."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from imagehub.database import UNSTORABLE
from scraping.models import (
    ImageOutcome,
    PageOutcome,
    ScrapedImage,
    ScrapedPage,
    ScrapeJob,
    address_key,
    domain_key,
)

LARGEST = 2**31 - 1


def _storable(text: str) -> str:
    if UNSTORABLE.search(text):
        raise ValueError("no database can store this")
    return text


def _word(longest: int) -> Any:
    return Annotated[str, Field(max_length=longest), AfterValidator(_storable)]


Url = _word(16_384)
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]


class _Told(BaseModel):
    """The end of an address."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    url: Annotated[Url, Field(min_length=1)]
    reason: _word(40) = ""
    page_url: Url = ""
    final_url: Url = ""
    redirects: Annotated[list[Url], Field(max_length=20)] = []
    status: Annotated[int, Field(ge=0, le=999)] | None = None
    robots: _word(20) = ""
    opt_out: _word(20) = ""
    attempts: Annotated[int, Field(ge=0, le=1000)] = 1
    at: Annotated[float, Field(ge=0, le=1e11)]
    """A POSIX time."""

    def _fill(self, row: ScrapedImage | ScrapedPage) -> None:
        row.url, row.key, row.domain = self.url, address_key(self.url), domain_key(_host(self.url))
        row.reason, row.status, row.attempts = self.reason, self.status, self.attempts
        row.page_url, row.final_url, row.redirects = self.page_url, self.final_url, list(self.redirects)
        row.robots, row.opt_out = self.robots, self.opt_out
        row.fetched_at = datetime.fromtimestamp(self.at, UTC)


class ToldCaption(BaseModel):
    """Words that a page has for a picture."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: _word(2_000)
    origin: _word(40)


class ToldImage(_Told):
    """The end of a picture. That somebody has to look at it is not for the crawler to say."""

    state: Literal["saved", "duplicate", "filtered", "blocked", "robots", "opted_out", "failed", "skipped"]
    origin: _word(20) = ""
    captions: Annotated[list[ToldCaption], Field(max_length=20)] = []
    licence: Url = ""
    sha256: Sha256 = ""
    format: Literal["png", "jpeg", "webp", ""] = ""
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{0,112}$")] = ""
    duplicate_of: Sha256 = ""
    size_bytes: Count = 0
    width: Count = 0
    height: Count = 0

    @model_validator(mode="after")
    def _is_there_if_saved(self) -> Self:
        if self.state == "saved" and (not self.sha256 or not self.format or self.reason):
            raise ValueError("a picture that was saved has content, and needs no reason")
        return self

    def row(self, job: ScrapeJob, position: int, known: ScrapedImage | None = None) -> ScrapedImage:
        """Return the row of a picture, unsaved, or a row that is there as it is told now."""
        item = known or ScrapedImage(job=job)
        self._fill(item)
        item.state, item.position = ImageOutcome(self.state), position
        item.page_domain = domain_key(_host(self.page_url))
        item.origin, item.licence = self.origin, self.licence
        item.captions = [{"text": one.text, "origin": one.origin} for one in self.captions]
        item.sha256, item.format, item.fingerprint = self.sha256, self.format, self.fingerprint
        item.duplicate_of = self.duplicate_of
        item.size_bytes, item.width, item.height = self.size_bytes, self.width, self.height
        return item


class ToldPage(_Told):
    """The end of a page."""

    state: Literal["visited", "filtered", "blocked", "robots", "opted_out", "failed", "skipped"]
    depth: Annotated[int, Field(ge=0, le=100)] = 1
    images_found: Count = 0
    links_found: Count = 0

    def row(self, job: ScrapeJob) -> ScrapedPage:
        """Return the row of a page, unsaved."""
        page = ScrapedPage(job=job)
        self._fill(page)
        page.state, page.depth = PageOutcome(self.state), self.depth
        page.images_found, page.links_found = self.images_found, self.links_found
        return page


class ToldFigures(BaseModel):
    """How far a crawl is, or was when it ended."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    counts: dict[str, Count]
    """Pictures by state."""
    pages: dict[str, Count]
    found: Count
    pages_known: Count = 0
    truncated: bool = False
    reason: _word(20) = ""
    """Of one that has ended: why."""


def told(event: Mapping[str, Any]) -> ToldImage | ToldPage | ToldFigures | None:
    """Return what an event tells, or None for one that tells nothing of a crawl.

    Raises:
        ValidationError: it makes no sense.
    """
    match event.get("event"):
        case "item":
            return ToldImage.model_validate(event)
        case "page":
            return ToldPage.model_validate(event)
        case "progress" | "finished":
            return ToldFigures.model_validate(event)
    return None


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
