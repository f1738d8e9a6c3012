"""What became of each host in a crawl, and how it is treated; and that somebody may be patient no longer."""

import time
from dataclasses import asdict

import pytest

from imagehub.accounts.models import AuditEntry
from scraping.models import HostRecord
from scraping.politeness.hosts import HostState
from scraping.services.hosts import forget_backoff, hosts_of, standing_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory

pytestmark = pytest.mark.django_db


def record(host: str, **state) -> HostRecord:
    return HostRecord.objects.create(host=host, state=asdict(HostState(**state)))


def test_what_became_of_each_host_is_counted(django_assert_num_queries):
    job = ScrapeJobFactory()
    ScrapedImageFactory(state="failed")  # of another crawl
    ScrapedPageFactory(job=job, domain="com.example.www", robots="disallowed", state="robots")
    ScrapedPageFactory(job=job, domain="com.example.www")
    ScrapedPageFactory(job=job, domain="127.0.0.1", state="failed", robots="")
    for number, (state, domain) in enumerate(
        [
            ("saved", "com.example.www"),
            ("saved", "com.example.www"),
            ("failed", "com.example.www"),
            ("failed", "a"),
        ]
    ):
        ScrapedImageFactory(job=job, position=number, domain=domain, state=state)
    record("www.example.com", requests=12, errors=2, latency=0.25)

    with django_assert_num_queries(3):
        found = hosts_of(job)

    assert [report.host for report in found] == ["www.example.com", "127.0.0.1", "a"]
    first = found[0]
    assert dict(first.images) == {"saved": 2, "failed": 1}
    assert dict(first.pages) == {"visited": 1, "robots": 1}
    assert dict(first.robots) == {"allowed": 4, "disallowed": 1}
    assert (first.errors, found[1].errors) == (1, 1)
    assert (first.standing.requests, first.standing.errors, first.standing.latency) == (12, 2, 0.25)
    assert found[1].standing is None
    assert [report.host for report in hosts_of(job, most=1)] == ["www.example.com"]


def test_what_another_version_has_noted_of_a_host_does_not_matter():
    row = record("new.example", interval=16, requests=40)
    HostRecord.objects.update(state=row.state | {"mood": "good"})
    row.refresh_from_db()

    assert standing_of(row).requests == 40
    assert forget_backoff(row)
    row.refresh_from_db()
    assert row.state == asdict(HostState(requests=40))


def test_a_host_in_trouble_is_forgiven(set_config):
    set_config("scraping: {interval_seconds: 2}\n")
    later = time.time() + 600
    row = record(
        "slow.example", interval=16, closed_until=later, failures=7, breaks=2, requests=40, errors=9,
        holders={"a": later, "b": 1.0},
    )  # fmt: skip
    before = standing_of(row)
    assert (before.is_broken, before.is_slowed, before.interval, before.active) == (True, True, 16, 1)
    assert before.closed_until.timestamp() == pytest.approx(later)

    assert forget_backoff(row)

    after = standing_of(HostRecord.objects.get())
    assert (after.is_broken, after.is_slowed, after.interval, after.closed_until) == (False, False, 2, None)
    assert (after.requests, after.errors, after.active) == (40, 9, 1)
    entry = AuditEntry.objects.get(action="hostrecord.forget_backoff")
    assert (entry.target_label, entry.before["failures"]) == ("slow.example", 7)
    assert not forget_backoff(row)
