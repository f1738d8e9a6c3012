"""Crawls, and what they fetched pictures from, in the graph of where things come from.

    crawl ── source ── image
      └──────────────────┘
    crawl                       (done again)

A source is one address at which one crawl has met a picture, with the page that shows it. A picture that was in the library
already has the sources at which it was found since, but comes from none of them.

A picture that waits for somebody's approval is no image yet, and its source is all there is of it.

Nothing leads from a crawl to what it has brought: a crawl may have been at several hosts, and whoever takes one of them down
does not mean the others.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Q, QuerySet, TextField
from django.db.models.functions import Cast

from albums.batches import in_batches
from albums.image_lineage import IMAGE
from albums.lineage import Edge, Key, Kind, Node, register_kind, register_links, register_sources
from albums.models import Image, may_see_everything
from imagehub.accounts import audit
from imagehub.egress.hosts import read_host
from scraping.crawler.addresses import normal
from scraping.models import (
    ImageOutcome,
    ScrapedImage,
    ScrapedPage,
    ScrapeJob,
    address_key,
    domain_key,
    in_domain,
)
from scraping.services.reviewing import take_down

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

CRAWL, SOURCE = "scrape_job", "source"

SHOWN_OF_SOURCES = (
    "state", "page_url", "url", "final_url", "redirects", "status", "fetched_at", "robots", "opt_out", "licence", "sha256",
)  # fmt: skip


def register() -> None:
    """Add them to the graph."""
    register_kind(Kind(CRAWL, _describe_crawls, _cancel))
    register_kind(Kind(SOURCE, _describe_sources, _turn_away))
    register_links(IMAGE, origins=_what_images_came_from)
    register_links(SOURCE, origins=_who_met_them, results=_what_came_of_sources)
    register_links(CRAWL, origins=_what_was_done_again)
    register_sources(_found_at, of_page=_found_on)


def _describe_crawls(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    """Yield crawls: everybody may know that they are, and of which host."""
    sees_everything = may_see_everything(user)
    for job in ScrapeJob.objects.filter(pk__in=ids).select_related("owner").defer("config"):
        details, url = {"host": job.host}, None
        if sees_everything:
            details |= {"status": job.status, "owner": job.owner.username}
            url = f"/api/scraping/jobs/{job.pk}"
        yield Node(Key(CRAWL, str(job.pk)), job.name, url, details)


def _describe_sources(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    """Yield sources for staff as they are, and for others their hosts and licence, if they may see the picture."""
    sources = ScrapedImage.objects.filter(pk__in=ids)
    sees_everything = may_see_everything(user)
    if not sees_everything:
        sources = sources.filter(image__in=Image.objects.shown_to(user))
    for source in sources:
        details: dict[str, Any] = {"host": _host(source.url), "page_host": _host(source.page_url)}
        if sees_everything:
            details |= {name: getattr(source, name) for name in SHOWN_OF_SOURCES}
        else:
            details["licence"] = _without_query(source.licence)
        label = source.page_url or source.url if sees_everything else details["host"]
        yield Node(Key(SOURCE, str(source.pk)), label, details=details)


def _what_images_came_from(ids: Sequence[str]) -> Iterator[Edge]:
    images = Image.objects.filter(pk__in=ids, source_kind=Image.SourceKind.SCRAPE, source_id__isnull=False)
    for image, job in images.values_list("id", "source_id"):
        yield Edge(Key(CRAWL, str(job)), Key(IMAGE, str(image)), "fetched")
    sources = ScrapedImage.objects.filter(image_id__in=ids).order_by("pk")
    for source, image, state in sources.values_list("pk", "image_id", "state").iterator():
        role = "fetched_from" if state == ImageOutcome.SAVED else "found_at"
        yield Edge(Key(SOURCE, str(source)), Key(IMAGE, str(image)), role)


def _who_met_them(ids: Sequence[str]) -> Iterator[Edge]:
    for source, job in ScrapedImage.objects.filter(pk__in=ids).values_list("pk", "job_id"):
        yield Edge(Key(CRAWL, str(job)), Key(SOURCE, str(source)), "met")


def _what_came_of_sources(ids: Sequence[str]) -> Iterator[Edge]:
    """Yield the images of sources: a picture may have been taken in while somebody looked for what waits."""
    sources = ScrapedImage.objects.filter(pk__in=ids, image__isnull=False)
    for source, image, state in sources.values_list("pk", "image_id", "state"):
        role = "fetched_from" if state == ImageOutcome.SAVED else "found_at"
        yield Edge(Key(SOURCE, str(source)), Key(IMAGE, str(image)), role)


def _what_was_done_again(ids: Sequence[str]) -> Iterator[Edge]:
    again = ScrapeJob.objects.filter(pk__in=ids, retry_of__isnull=False)
    for job, earlier in again.values_list("pk", "retry_of_id"):
        yield Edge(Key(CRAWL, str(earlier)), Key(CRAWL, str(job)), "tried_again")


def _found_at(host: str) -> Iterator[Key]:
    """Yield the crawls that are at a host or one below it still, and the pictures that came from there.

    Be they in the trash, or not taken in yet.
    """
    pages = ScrapedPage.objects.filter(in_domain("domain", host))
    sources = ScrapedImage.objects.from_domain(host)
    yield from _crawls_at(lambda url: _is_below(url, host), pages, sources)
    yield from _pictures_of(sources)
    yield from _pictures_that_moved_by(host)
    moved = pages.exclude(final_url="").exclude(final_url=F("url")).values_list("final_url", flat=True)
    for batch in in_batches(url for url in moved.iterator() if not _is_below(url, host)):
        yield from _pictures_of(ScrapedImage.objects.filter(_shown_on(batch)))
    # Nobody knows any more from where the pictures of a crawl came that has left no addresses: it was imported.
    crawls = ScrapeJob.objects.filter(Q(host=host) | Q(host__endswith=f".{host}"))
    unknown = Image.objects.filter(
        source_kind=Image.SourceKind.SCRAPE, source_id__in=crawls.values("pk"), scraped_from=None
    )
    yield from _keys(IMAGE, unknown.values_list("pk", flat=True))


def _found_on(page: str) -> Iterator[Key]:
    """Yield the crawls that have read a page or are to read it, and the pictures that it shows, or that one which it is."""
    spellings = {normal(page), page.partition("#")[0]} - {""}
    domains = {domain_key(_host(url)) for url in spellings}
    itself = Q(domain__in=domains, key__in=map(address_key, spellings))
    pages = ScrapedPage.objects.filter(itself)
    arrived = (spellings | set(pages.values_list("final_url", flat=True))) - {""}
    sources = ScrapedImage.objects.filter(_shown_on(arrived) | itself)
    yield from _crawls_at(spellings.__contains__, pages, sources)
    yield from _pictures_of(sources)
    yield from _pictures_of(ScrapedImage.objects.filter(final_url__in=spellings))


def _shown_on(pages: Collection[str]) -> Q:
    """Return the condition that a picture stands on one of some pages, as they are called behind their redirects."""
    return Q(page_domain__in={domain_key(_host(url)) for url in pages}, page_url__in=pages)


def _crawls_at(
    is_there: Callable[[str], bool], pages: "QuerySet[ScrapedPage]", sources: "QuerySet[ScrapedImage]"
) -> Iterator[Key]:
    """Yield the crawls that have not ended and were sent to some addresses, or have met one of some rows."""
    met = Exists(pages.filter(job=OuterRef("pk"))) | Exists(sources.filter(job=OuterRef("pk")))
    active = ScrapeJob.objects.active().annotate(has_met=met)
    for pk, config, has_met in active.values_list("pk", "config", "has_met").iterator(chunk_size=20):
        sent_to = [*config.get("start_urls", ()), *config.get("image_urls", ())]
        if has_met or any(map(is_there, sent_to)):
            yield Key(CRAWL, str(pk))


def _pictures_of(sources: "QuerySet[ScrapedImage]") -> Iterator[Key]:
    """Yield the images of sources, and the sources of pictures that wait to become one."""
    yield from _keys(IMAGE, sources.filter(image__isnull=False).values_list("image_id", flat=True))
    yield from _keys(SOURCE, sources.filter(state=ImageOutcome.REVIEW).values_list("pk", flat=True))
    yield from _pictures_with_the_bytes_of(sources)


def _pictures_with_the_bytes_of(sources: "QuerySet[ScrapedImage]") -> Iterator[Key]:
    """Yield the pictures that a crawl under review has kept in place of some that have the same bytes."""
    same = sources.filter(state=ImageOutcome.DUPLICATE, image=None).exclude(duplicate_of="")
    for batch in in_batches(same.values_list("job_id", "duplicate_of").iterator()):
        contents: dict[UUID, set[str]] = {}
        for job, sha256 in batch:
            contents.setdefault(job, set()).add(sha256)
        for job, wanted in contents.items():
            kept = ScrapedImage.objects.filter(job=job, sha256__in=wanted)
            yield from _keys(IMAGE, kept.filter(image__isnull=False).values_list("image_id", flat=True))
            yield from _keys(SOURCE, kept.filter(state=ImageOutcome.REVIEW).values_list("pk", flat=True))


def _pictures_that_moved_by(host: str) -> Iterator[Key]:
    """Yield the pictures of other hosts whose redirects have led to this one or one below it, or past it."""
    on_the_way = Cast("redirects", TextField())
    moved = ScrapedImage.objects.alias(on_the_way=on_the_way).filter(
        Q(image__isnull=False) | Q(state=ImageOutcome.REVIEW),
        Q(final_url__icontains=host) & ~Q(final_url=F("url")) | Q(on_the_way__icontains=host),
    )
    addresses = moved.values_list("pk", "image_id", "final_url", "redirects")
    for pk, image, url, redirects in addresses.iterator():
        if any(_is_below(one, host) for one in (url, *redirects)):
            yield Key(IMAGE, str(image)) if image else Key(SOURCE, str(pk))


def _keys(kind: str, ids: Any) -> Iterator[Key]:
    return (Key(kind, str(pk)) for pk in ids.iterator())


def _turn_away(ids: Sequence[str], reason: str) -> int:
    return take_down(map(int, ids), reason=reason)


def _cancel(ids: Sequence[str], reason: str) -> int:
    """Cancel crawls that have not ended. What one that runs has fetched already waits for somebody's approval."""
    active = ScrapeJob.objects.filter(pk__in=ids).active().locked_in_order().defer("config")
    before = {job.pk: job for job in active}
    reached = ScrapeJob.objects.filter(pk__in=before)
    reached.update(needs_review=True)
    reached.request_cancel()
    for job in reached.defer("config").order_by("pk"):
        was = before[job.pk]
        if was.cancel_requested_at is None or not was.needs_review:
            after = {**_standing(job), "reason": reason}
            audit.record("scrapejob.cancel", job, before=_standing(was), after=after)
    return sum(job.cancel_requested_at is None for job in before.values())


def _standing(job: ScrapeJob) -> dict[str, Any]:
    return {"status": job.status, "needs_review": job.needs_review}


def _is_below(url: str, host: str) -> bool:
    found = _host(url)
    return found == host or found.endswith(f".{host}")


def _host(url: str) -> str:
    """Return the host of an address in its one spelling; empty where it has none."""
    try:
        return str(read_host(urlsplit(url).hostname or ""))
    except ValueError:
        return ""


def _without_query(url: str) -> str:
    """Return an address as everybody may read it: what is behind its path, or before its host, may be a secret."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return ""
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return ""
