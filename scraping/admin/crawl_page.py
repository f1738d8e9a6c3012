"""What the page of one crawl shows: how far it is, what became of each address and host, its log, what was asked for."""

from collections import Counter
from typing import Any

from django.contrib import admin
from django.db.models import Count
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from imagehub.jobs.models import JobStatus
from scraping.admin.links import NOTHING, crawl_link, found_url, host_url, outward_list
from scraping.models import ImageOutcome, PageOutcome, ScrapedImage, ScrapedPage, ScrapeJob
from scraping.services import reviewing
from scraping.services.folders import folder_of
from scraping.services.hosts import HostReport, Standing, hosts_of

MOST_HOSTS = 50
MOST_ADDRESSES = 20

LIMITS = {
    "depth": "{} deep",
    "max_pages": "at most {:,} pages",
    "max_images": "at most {:,} pictures",
    "min_side": "of at least {} pixels",
}
ENDS = {
    "finished": "Nothing was left to fetch.",
    "image_limit": "It has found as many pictures as it was to.",
    "byte_limit": "It has fetched as much as one crawl may.",
    "time_limit": "It took as long as one crawl may.",
    "cancelled": "Somebody has cancelled it.",
}
FOLLOWED = {
    "nowhere": "Links are not followed",
    "host": "Links to the same host are followed",
    "site": "Links within the same site are followed",
    "anywhere": "Links are followed anywhere",
}


class CrawlPage:
    """Fields of the page of a crawl. Those with ``data-live`` are kept fresh while it runs."""

    @admin.display(description="Pictures and pages")
    def figures(self, job: ScrapeJob) -> str:
        pictures = _tiles(job, ScrapedImage, ImageOutcome)
        pages = _tiles(job, ScrapedPage, PageOutcome)
        return format_html(
            '<div id="figures" data-live><dl class="figures" aria-label="Pictures">{}</dl>'
            '<dl class="figures" aria-label="Pages">{}</dl></div>',
            pictures, pages,
        )  # fmt: skip

    @admin.display(description="For you to do")
    def to_do(self, job: ScrapeJob) -> str:
        """Lead to what waits for somebody's word."""
        review, lookalikes = (
            reverse(f"admin:scraping_scrapejob_{name}", args=[job.pk]) for name in ("review", "lookalikes")
        )
        tasks = [
            (
                review,
                _counted_words(reviewing.undecided(job).count(), "picture to review", "pictures to review"),
            ),
            (
                lookalikes,
                _counted_words(
                    reviewing.lookalikes(job).count(),
                    "picture looks like another",
                    "pictures look like others",
                ),
            ),
        ]
        links = format_html_join(
            "", '<a class="button" href="{}">{}</a>', (task for task in tasks if task[1])
        )
        count = reviewing.approved(job).count() if job.needs_review else 0
        if coming := _counted_words(
            count, "picture is about to be taken in", "pictures are about to be taken in"
        ):
            links = format_html("{}<span>{}.</span>", links, coming)
        return format_html('<div id="to-do" data-live>{}</div>', links or "Nothing.")

    @admin.display(description="Hosts")
    def hosts(self, job: ScrapeJob) -> str:
        """List what became of the addresses of each host, and how it is treated by all crawls together."""
        reports = hosts_of(job, most=MOST_HOSTS + 1)
        if not reports:
            return mark_safe('<div id="hosts" data-live>None was asked yet.</div>')
        names = (
            "Host", "Pages", "Pictures", "Errors", "robots.txt", "Requests in all", "Interval", "Latency", "Now",
        )  # fmt: skip
        head = format_html_join("", "<th>{}</th>", ((name,) for name in names))
        rows = format_html_join("", "<tr>{}</tr>", ((_cells(report),) for report in reports[:MOST_HOSTS]))
        more = (
            "There are more; the lists of pages and pictures have all." if len(reports) > MOST_HOSTS else ""
        )
        return format_html(
            '<div id="hosts" data-live><table class="hosts"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}</div>',
            head, rows, more,
        )  # fmt: skip

    @admin.display(description="Why it ended")
    def ended(self, job: ScrapeJob) -> str:
        said = why_ended(job)
        more = "There were more addresses than are even noted." if job.is_truncated else ""
        return f"{said} {more}".strip()

    @admin.display(description="From")
    def addresses(self, job: ScrapeJob) -> str:
        """List the addresses that were named."""
        return outward_list(
            [*job.config.get("start_urls", ()), *job.config.get("image_urls", ())], most=MOST_ADDRESSES
        )

    @admin.display(description="How far")
    def limits(self, job: ScrapeJob) -> str:
        known = [text.format(job.config[name]) for name, text in LIMITS.items() if name in job.config]
        followed = FOLLOWED.get(str(job.config.get("follow")), "")
        return "; ".join(part for part in (followed, *known) if part) or NOTHING

    @admin.display(description="What sites ask for")
    def obeyed(self, job: ScrapeJob) -> str:
        """Say what of it is disregarded, if anything is."""
        names = {"obey_robots": "robots.txt", "obey_opt_outs": "opt-outs from AI"}
        ignored = [text for name, text in names.items() if job.config.get(name) is False]
        if not ignored:
            return "robots.txt and opt-outs from AI are obeyed."
        return format_html('<strong class="warning">Disregarded: {}.</strong>', " and ".join(ignored))

    @admin.display(description="Tried before")
    def earlier(self, job: ScrapeJob) -> str:
        return crawl_link(job.retry_of)

    @admin.display(description="Its folder")
    def location(self, job: ScrapeJob) -> str:
        root = folder_of(job).root
        return str(root) if root.exists() else f"{root} (not there)"


def why_ended(job: ScrapeJob) -> str:
    """Return in a sentence why a crawl ended; nothing where it has not, or failed."""
    reason = JobStatus.CANCELLED if job.status == JobStatus.CANCELLED else job.end_reason
    return ENDS.get(reason, reason)


def standing_words(standing: Standing | None) -> str:
    """Return how a host is treated now, in words."""
    if standing is None:
        return "forgotten"
    if standing.closed_until is not None:
        why = "broken off" if standing.is_broken else "left alone"
        return f"{why} until {standing.closed_until:%H:%M:%S} UTC"
    return "slowed down" if standing.is_slowed else "open"


def seconds(value: float) -> str:
    """Return a time as short as it says something."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.3g} s"


def _tiles(
    job: ScrapeJob,
    model: type[ScrapedImage] | type[ScrapedPage],
    outcomes: type[ImageOutcome] | type[PageOutcome],
) -> str:
    """Return the number of pictures or pages by what became of them, each with a link to these."""
    rows = model.objects.filter(job=job).order_by().values_list("state").annotate(count=Count("pk"))
    counts = Counter(dict(rows))
    name = "Pictures" if model is ScrapedImage else "Pages"
    tiles = [(found_url(model, job), f"{counts.total():,}", name)]
    tiles += [
        (found_url(model, job, state=outcome.value), f"{counts[outcome]:,}", str(outcome.label))
        for outcome in outcomes
        if counts[outcome]
    ]
    return format_html_join(
        "",
        '<div><dt>{}</dt><dd><a href="{}">{}</a></dd></div>',
        ((label, url, count) for url, count, label in tiles),
    )


def _cells(report: HostReport) -> str:
    standing = report.standing
    name: Any = report.host or NOTHING
    if standing is not None:
        name = format_html('<a href="{}">{}</a>', host_url(report.host), report.host)
    is_troubled = standing is not None and (standing.closed_until is not None or standing.is_slowed)
    cells = (
        name,
        _counted(report.pages),
        _counted(report.images),
        report.errors or "",
        _counted(report.robots),
        f"{standing.requests:,}, {standing.errors:,} failed" if standing else NOTHING,
        seconds(standing.interval) if standing else NOTHING,
        seconds(standing.latency) if standing and standing.latency else NOTHING,
        format_html('<strong class="warning">{}</strong>', standing_words(standing))
        if is_troubled
        else standing_words(standing),
    )
    return format_html_join("", "<td>{}</td>", ((cell,) for cell in cells))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.most_common()) or NOTHING


def _counted_words(count: int, one: str, many: str) -> str:
    """Return a number with the words that go with it; nothing for none."""
    return f"{count:,} {one if count == 1 else many}" if count else ""
