"""What a crawler is told to do, and how its folder is laid out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from imagehub.egress.policy import WEB_PORTS, Policy
from scraping.crawler.addresses import normal
from scraping.politeness.robots import PRODUCT

MIB = 1024 * 1024


class AssignmentInvalid(Exception):
    """The folder holds no assignment that can be carried out; the text says what is wrong with which field."""


@dataclass(frozen=True)
class CrawlFolder:
    """The folder of one crawl: all that it writes lies there."""

    root: Path

    @property
    def assignment(self) -> Path:
        return self.root / "crawl.json"

    @property
    def journal(self) -> Path:
        """What has happened, one JSON object a line: a crawl that was killed goes on from it."""
        return self.root / "journal.jsonl"

    @property
    def pictures(self) -> Path:
        """The pictures, each called by its SHA-256 and its format."""
        return self.root / "pictures"


def _address(url: str) -> str:
    found = normal(url)
    if not found:
        raise ValueError("is no address of the web")
    return found


def _agent(text: str) -> str:
    """A user agent names us by the word that robots.txt may call us, and somebody to turn to."""
    if not text.isascii() or not text.isprintable() or PRODUCT not in text or "+" not in text:
        raise ValueError(f"must be printable and hold {PRODUCT} and a contact (+https://... or +mailto:...)")
    return text


Address = Annotated[str, AfterValidator(_address)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Caps(_Strict):
    """Where a crawl ends, whatever there is left. All of them are hard."""

    pages: int = Field(default=100, ge=1, le=100_000)
    images: int = Field(default=1_000, ge=1, le=10_000)
    total_bytes: int = Field(default=4096 * MIB, ge=1)
    """Of all answers together: as they come over the wire, and what decompression adds."""
    page_bytes: int = Field(default=3 * MIB, ge=1, le=64 * MIB)
    """Of one page, decompressed."""
    image_bytes: int = Field(default=20 * MIB, ge=1, le=256 * MIB)
    seconds: float = Field(default=7200.0, gt=0)


class Sizes(_Strict):
    """Which pictures are kept, by what their headers say. Sides are pixels."""

    min_side: int = Field(default=128, ge=1)
    max_side: int = Field(default=16_384, ge=1)
    min_area: int = Field(default=0, ge=0)
    max_area: int = Field(default=64_000_000, ge=1)
    max_ratio: float = Field(default=10.0, ge=1)
    """The longer side is at most so many times the shorter one."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.min_side > self.max_side or self.min_area > self.max_area:
            raise ValueError("no picture is as small and as large as this asks for")
        return self


class Egress(_Strict):
    """What may be reached; see :meth:`imagehub.egress.policy.Policy.read`. By default the public web only."""

    allow_private: list[str] = Field(default_factory=list)
    own_hosts: list[str] = Field(default_factory=list)
    ports: list[int] = Field(default_factory=lambda: sorted(WEB_PORTS))

    @property
    def policy(self) -> Policy:
        return Policy.read(**self.model_dump())

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        _ = self.policy  # raises ValueError for an entry that is none
        return self


class Assignment(_Strict):
    """All that a crawler needs to know. Either ``start_urls`` or ``image_urls``, or both."""

    version: Literal[1] = 1
    start_urls: list[Address] = Field(default_factory=list, max_length=1_000)
    image_urls: list[Address] = Field(default_factory=list, max_length=10_000)
    depth: int = Field(default=1, ge=1, le=10)
    """1 reads the start pages only; each more follows the links of what was read before."""
    follow: Literal["nowhere", "host", "site", "anywhere"] = "site"
    """Which links are followed: to the same host, or within the same registrable domain, as one of the start pages."""
    caps: Caps = Caps()
    sizes: Sizes = Sizes()
    user_agent: Annotated[str, AfterValidator(_agent)] = Field(max_length=256)
    egress: Egress = Egress()
    obey_robots: bool = True
    obey_opt_outs: bool = True
    attempts: int = Field(default=4, ge=1, le=10)
    """Of one address, as long as its server is busy or does not answer."""
    redirects: int = Field(default=5, ge=0, le=10)
    patience_seconds: float = Field(default=120.0, gt=0)
    """An address whose host wants to be left alone for longer than this is given up."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=600)
    """Of one request, from the connection to the last byte."""
    concurrency: int = Field(default=16, ge=1, le=64)
    """Requests on their way at once, of all hosts together."""
    known_hashes: list[Sha256] = Field(default_factory=list)
    """SHA-256 of pictures that are there already: they count as duplicates."""
    seen_urls: list[str] = Field(default_factory=list)
    """Addresses of pictures that are there already: they count as duplicates, and are not fetched."""

    @model_validator(mode="after")
    def _has_a_start(self) -> Self:
        if not self.start_urls and not self.image_urls:
            raise ValueError("start_urls and image_urls are both empty: there is nothing to begin with")
        return self

    def write(self, folder: CrawlFolder) -> None:
        """Write it where a crawler looks for it."""
        folder.root.mkdir(parents=True, exist_ok=True)
        partial = folder.assignment.with_suffix(".part")
        partial.write_text(self.model_dump_json())
        partial.replace(folder.assignment)

    @classmethod
    def read(cls, folder: CrawlFolder) -> Self:
        """Read what a folder holds.

        Raises:
            AssignmentInvalid: there is none, or it cannot be carried out.
        """
        try:
            content = json.loads(folder.assignment.read_text())
        except (OSError, ValueError):
            raise AssignmentInvalid("The folder holds no readable crawl.json.") from None
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "crawl.json"
            raise AssignmentInvalid(f"“{place}”: {first['msg']}.") from None
