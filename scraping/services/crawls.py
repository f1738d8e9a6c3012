"""The life of crawls as people see it: asked for, cancelled, and done again. What a worker does is elsewhere."""

from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import transaction
from pydantic import ValidationError

from albums.models import Album, Visibility
from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.errors import Conflict, Invalid
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.queue import ring
from scraping.models import ScrapeJob
from scraping.models.jobs import LONGEST_NAME
from scraping.services.plans import (
    MOST_PAGES,
    MOST_URLS,
    Plan,
    config_of,
    host_of_plan,
    plan_of,
    split_by_ending,
    vetted_urls,
)

USUAL_IMAGES = 1000
"""So many pictures are collected where nobody says how many."""


class AlreadyFinished(Conflict):
    code = "already_finished"
    title = "The crawl has finished"


class NotRepeatable(Conflict):
    code = "not_repeatable"
    title = "The crawl cannot be done again"


class NotFinished(Conflict):
    code = "not_finished"
    title = "The crawl has not finished"


def start_crawl(
    *,
    owner: User,
    url: str = "",
    urls: Sequence[str] = (),
    name: str = "",
    description: str = "",
    depth: int | None = None,
    follow_links: bool = True,
    follow: str = "site",
    max_images: int | None = None,
    max_pages: int | None = None,
    min_side: int | None = None,
    obey_robots: bool = True,
    obey_opt_outs: bool = True,
    album: Album | None = None,
    album_name: str = "",
    visibility: str = Visibility.PRIVATE,
    needs_review: bool = False,
) -> ScrapeJob:
    """Queue a crawl of a site, or of a list of pages and pictures.

    Args:
        owner: who asks.
        url: of a page to begin with.
        urls: in its place, a list of addresses: what ends like a picture is fetched as one, all else is read as a page. Links
            are followed from none of them.
        name: what it is called, for everybody to read; by default after the host, which everybody may know.
        description: likewise.
        depth: 1 reads the first page only; each more follows the links of what was read before.
        follow_links: whether links are followed at all.
        follow: where to: ``host``, ``site`` (the same registrable domain) or ``anywhere``.
        max_images: after so many it ends; by default 1000.
        max_pages: so many are read at most; by default as many as are configured.
        min_side: in pixels, of pictures that are kept.
        obey_robots: whether what robots.txt forbids is left alone. Audited.
        obey_opt_outs: whether pictures whose site opts out of AI are left alone. Audited.
        album: where the pictures go.
        album_name: in its place, what a new album is called; by default after the crawl.
        visibility: of the pictures, and of a new album.
        needs_review: whether somebody has to approve of the pictures before they are taken in.

    Raises:
        BlockedAddress: an address that cannot be fetched, as far as can be told now.
        Invalid: a value is out of what the configuration allows, or neither or both of ``url`` and ``urls`` are given.
    """
    limits = get_config().scraping
    if bool(url) == bool(urls):
        raise Invalid("Either one address or a list of addresses is needed.", pointer="/url", code="required")
    if max_images is None:
        max_images = min(USUAL_IMAGES, limits.max_images)
    if max_images > limits.max_images:
        raise Invalid(f"One crawl collects at most {limits.max_images} pictures.", pointer="/max_images")
    if max_pages is not None and max_pages > limits.max_pages:
        raise Invalid(f"One crawl reads at most {limits.max_pages} pages.", pointer="/max_pages")
    if len(urls) > MOST_URLS:
        raise Invalid(f"A list has at most {MOST_URLS} addresses.", pointer="/urls")
    found = vetted_urls(urls or [url], is_list=bool(urls))
    pages, pictures = split_by_ending(found) if urls else (found, [])
    if len(pages) > MOST_PAGES:
        raise Invalid(f"A list names at most {MOST_PAGES} pages beside pictures.", pointer="/urls")
    follows = follow_links and not urls and depth != 1
    plan = Plan(
        start_urls=pages,
        image_urls=pictures,
        depth=(depth or limits.depth) if follows else 1,
        follow=follow if follows else "nowhere",  # type: ignore[arg-type] - the model checks it
        max_pages=max_pages or max(limits.max_pages if follows else len(pages), 1),
        max_images=max_images,
        min_side=min_side or limits.minimum_side,
        obey_robots=obey_robots,
        obey_opt_outs=obey_opt_outs,
    )
    host = host_of_plan(plan)
    name = name or host[:LONGEST_NAME]
    return _queue(
        ScrapeJob(
            owner=owner,
            name=name,
            description=description,
            host=host,
            config=config_of(plan),
            album=album,
            album_name="" if album else album_name or name,
            visibility=visibility,
            needs_review=needs_review,
            total_steps=max_images,
            max_attempts=limits.max_attempts,
        )
    )


def retry_crawl(job: ScrapeJob, *, owner: User) -> ScrapeJob:
    """Queue a crawl that has ended once more, as a new one into the same album. What is there already is not fetched again.

    Raises:
        NotFinished: it goes on still.
        NotRepeatable: what it was to do is not known.
        BlockedAddress: an address that may not be fetched any more.
    """
    if not job.is_finished:
        raise NotFinished(f"The crawl is {job.status}.")
    try:
        plan = plan_of(job)
    except ValidationError:  # it comes from another system
        raise NotRepeatable("How this crawl was done is not known well enough to do it again.") from None
    vetted_urls([*plan.start_urls, *plan.image_urls], is_list=True)
    return _queue(
        ScrapeJob(
            owner=owner,
            name=job.name,
            description=job.description,
            host=job.host,
            config=job.config,
            album=job.album,
            album_name="" if job.album else job.album_name or job.name,
            visibility=job.visibility,
            needs_review=job.needs_review,
            retry_of=job,
            total_steps=job.total_steps,
            max_attempts=get_config().scraping.max_attempts,
        )
    )


def cancel_crawl(job: ScrapeJob) -> ScrapeJob:
    """Cancel a crawl: one that waits ends at once, one that runs is asked to stop. The pictures it has brought stay.

    Raises:
        AlreadyFinished: there is nothing left to cancel.
    """
    with transaction.atomic():
        before = {"status": job.status}
        reached = ScrapeJob.objects.filter(pk=job.pk).request_cancel()
        job.refresh_from_db()
        if reached:
            audit.record("scrapejob.cancel", job, before=before, after={"status": job.status})
    if not reached:
        raise AlreadyFinished(f"The crawl is {job.status} already.")
    return job


def _queue(job: ScrapeJob) -> ScrapeJob:
    job.full_clean(validate_constraints=False, exclude=["owner", "album", "retry_of"])
    with transaction.atomic():
        job.save(force_insert=True)
        # The entry of the new row may be cut short by a long list of addresses; this one must not be missed.
        if overridden := {name: False for name in ("obey_robots", "obey_opt_outs") if not job.config[name]}:
            audit.record("scrapejob.override", job, after=overridden)
        ScrapeJob.objects.filter(pk=job.pk, status=JobStatus.PENDING).enqueue()
        ring(Cluster.SCRAPING)
    job.refresh_from_db()
    return job
