"""What a crawl is to do: as somebody asks for it, as its row keeps it, and as the crawler is told."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from django.conf import settings
from pydantic import BaseModel, ConfigDict, Field

import imagehub
from imagehub.config import get_config
from imagehub.egress.policy import BlockedAddress
from imagehub.egress.site import egress_policy, policy_values
from imagehub.egress.urls import vet_url
from scraping.crawler.addresses import LONGEST, PICTURE_ENDINGS, ending, normal
from scraping.crawler.assignment import Assignment, Caps, Egress, Sizes
from scraping.models import ScrapeJob
from scraping.politeness.hosts import Manners
from scraping.politeness.robots import PRODUCT

MOST_URLS = 10_000
MOST_PAGES = 1_000
"""Of a list of addresses, so many may be pages: the crawler begins with no more."""


class Plan(BaseModel):
    """What ``ScrapeJob.config`` holds: everything that was decided when the crawl was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start_urls: list[str] = Field(default_factory=list)
    image_urls: list[str] = Field(default_factory=list)
    depth: Annotated[int, Field(ge=1, le=10)] = 1
    follow: Literal["nowhere", "host", "site", "anywhere"] = "site"
    max_pages: Annotated[int, Field(ge=1)]
    max_images: Annotated[int, Field(ge=1)]
    min_side: Annotated[int, Field(ge=1)]
    obey_robots: bool = True
    obey_opt_outs: bool = True


def plan_of(job: ScrapeJob) -> Plan:
    """Return what a crawl is to do.

    Raises:
        ValidationError: the row holds something else; it was not written by this code.
    """
    return Plan.model_validate(job.config)


def vetted_urls(urls: Sequence[str], *, is_list: bool) -> list[str]:
    """Return addresses in their one spelling, each once.

    Raises:
        BlockedAddress: one of them is not to be fetched, as far as can be told from its text, or is longer than the crawler
            takes. Its pointer is ``/urls/N`` for a list, else ``/url``.
    """
    policy = egress_policy()
    vetted = {}
    for number, url in enumerate(urls):
        pointer = f"/urls/{number}" if is_list else "/url"
        address = vet_url(url, policy, pointer=pointer)
        if not normal(address):
            raise BlockedAddress(
                f"A crawl reads addresses of at most {LONGEST} characters, written in ASCII.", pointer=pointer
            )
        vetted[address] = None
    return list(vetted)


def split_by_ending(urls: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which addresses of a list to read as pages, and which to fetch as pictures, by how they end."""
    pictures = [url for url in urls if ending(url) in PICTURE_ENDINGS]
    return [url for url in urls if ending(url) not in PICTURE_ENDINGS], pictures


def host_of_plan(plan: Plan) -> str:
    """Return the host of the first address."""
    return (urlsplit((plan.start_urls + plan.image_urls)[0]).hostname or "").rstrip(".")


def assignment_of(
    plan: Plan, *, known_hashes: Sequence[str] = (), seen_urls: Sequence[str] = ()
) -> Assignment:
    """Return what the crawler is told, with what holds here and now: limits, manners and what may be reached."""
    config = get_config()
    scraping, uploads = config.scraping, config.uploads
    return Assignment(
        start_urls=plan.start_urls,
        image_urls=plan.image_urls,
        depth=plan.depth,
        follow=plan.follow,
        caps=Caps(
            pages=min(plan.max_pages, scraping.max_pages),
            images=min(plan.max_images, scraping.max_images),
            total_bytes=scraping.max_total_bytes,
            page_bytes=scraping.max_page_bytes,
            image_bytes=uploads.max_file_bytes,
            # It ends by itself, and what it has found is kept; the guard would only end it.
            seconds=max(scraping.wall_seconds - scraping.grace_seconds, 0.9 * scraping.wall_seconds),
        ),
        sizes=Sizes(
            min_side=min(plan.min_side, uploads.max_side),
            max_side=uploads.max_side,
            max_area=uploads.max_pixels,
            max_ratio=float(min(uploads.max_ratio, 10)),
        ),
        user_agent=user_agent(),
        egress=Egress(**policy_values()),
        obey_robots=plan.obey_robots,
        obey_opt_outs=plan.obey_opt_outs,
        attempts=scraping.attempts,
        patience_seconds=float(scraping.patience_seconds),
        timeout_seconds=float(scraping.request_seconds),
        concurrency=scraping.concurrency,
        known_hashes=list(known_hashes),
        seen_urls=list(seen_urls),
    )


def manners() -> Manners:
    """Return how hosts are treated that say nothing themselves."""
    config = get_config().scraping
    return Manners(interval=config.interval_seconds, connections=config.connections_per_host)


def user_agent() -> str:
    """Return what every host is told: our name, and whom to turn to."""
    contact = get_config().scraping.contact
    if not contact:
        host = next((host.lstrip(".") for host in settings.ALLOWED_HOSTS if host.strip("*.")), "localhost")
        contact = f"https://{host}/"
    return f"{PRODUCT}/{imagehub.__version__} (+{contact})"


def config_of(plan: Plan) -> dict[str, Any]:
    """Return what ``ScrapeJob.config`` is to hold."""
    return plan.model_dump(mode="json")
