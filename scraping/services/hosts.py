"""The hosts of crawls: what became of the addresses of each, and how it is treated by all crawls together."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from albums.batches import in_batches
from imagehub.accounts import audit
from scraping.models import HostRecord, ScrapedImage, ScrapedPage, ScrapeJob, domain_key
from scraping.politeness.hosts import HostState
from scraping.services.plans import manners
from scraping.services.shared_store import SharedStore

FAILED = "failed"


@dataclass(frozen=True)
class Standing:
    """How a host is treated now, by all crawls."""

    interval: float
    """Seconds between two requests. Its robots.txt may ask for more."""
    is_slowed: bool
    """It has refused requests, so that the interval is longer than usual."""
    closed_until: datetime | None
    """Nothing is asked before that; None where it is open."""
    is_broken: bool
    """It failed so often in a row that it is closed by the circuit breaker."""
    failures: int
    """In a row."""
    requests: int
    errors: int
    latency: float
    """Seconds to the headers of an answer, as a moving average."""
    active: int
    """Requests on their way."""


@dataclass
class HostReport:
    """What became of the addresses of one host in one crawl, and how the host is treated."""

    host: str
    pages: Counter[str] = field(default_factory=Counter)
    """By their outcome, as are the pictures."""
    images: Counter[str] = field(default_factory=Counter)
    robots: Counter[str] = field(default_factory=Counter)
    """What robots.txt says of its addresses, by verdict."""
    standing: Standing | None = None
    """None where nothing is remembered of it any more."""

    @property
    def errors(self) -> int:
        """Addresses that could not be fetched."""
        return self.pages[FAILED] + self.images[FAILED]

    @property
    def addresses(self) -> int:
        return self.pages.total() + self.images.total()


def hosts_of(job: ScrapeJob, *, most: int | None = None) -> list[HostReport]:
    """Return what became of the addresses of each host of a crawl, those with the most first.

    Args:
        job: the crawl.
        most: so many hosts at most; None for all of them.
    """
    reports: dict[str, HostReport] = {}
    for model in (ScrapedPage, ScrapedImage):
        rows = model.objects.filter(job=job).order_by().values_list("domain", "state", "robots")
        for domain, state, robots, count in rows.annotate(count=Count("pk")):
            host = domain_key(domain)  # the other way round again
            report = reports.setdefault(host, HostReport(host))
            (report.pages if model is ScrapedPage else report.images)[state] += count
            if robots:
                report.robots[robots] += count
    found = sorted(reports.values(), key=lambda report: (-report.addresses, report.host))[:most]
    standings = _standings(report.host for report in found)
    for report in found:
        report.standing = standings.get(report.host)
    return found


def standing_of(record: HostRecord) -> Standing:
    """Return how a host is treated now."""
    state, usual, now = HostState.read(record.state), manners(), timezone.now().timestamp()
    is_closed = state.closed_until > now
    return Standing(
        interval=max(state.interval, usual.interval),
        is_slowed=state.interval > usual.interval,
        closed_until=datetime.fromtimestamp(state.closed_until, UTC) if is_closed else None,
        is_broken=is_closed and state.failures >= usual.breaker_failures,
        failures=state.failures,
        requests=state.requests,
        errors=state.errors,
        latency=state.latency,
        active=sum(until > now for until in state.holders.values()),
    )


def forget_backoff(record: HostRecord) -> bool:
    """Ask a host again at the usual rate, and now; tell whether it was left alone, or asked more rarely.

    Raises:
        StillBusy: crawls change its state all the time.
    """

    def step(state: HostState) -> dict[str, float]:
        before = {name: getattr(state, name) for name in ("interval", "closed_until", "failures", "breaks")}
        state.interval = state.closed_until = 0.0
        state.failures = state.breaks = state.good = 0
        return before

    with transaction.atomic():
        before = SharedStore().change(record.host, step)
        record.refresh_from_db()
        audit.record("hostrecord.forget_backoff", record, before=before)
    return any(before.values())


def _standings(hosts: Iterable[str]) -> dict[str, Standing]:
    return {
        record.host: standing_of(record)
        for batch in in_batches(hosts)
        for record in HostRecord.objects.filter(pk__in=batch)
    }
