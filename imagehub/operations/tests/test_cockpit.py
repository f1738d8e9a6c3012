"""What the first page of the admin is made of, and what it costs when many look at it."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from imagehub import storage
from imagehub.jobs.models import WorkerPresence
from imagehub.operations import cockpit, remembered
from imagehub.operations.models import DiskAlert, DiskSnapshot

pytestmark = pytest.mark.django_db

KEYS = (cockpit.COMMON_KEY, cockpit.HEALTH_KEY, cockpit.DISKS_KEY)


@pytest.fixture(autouse=True)
def _nobody_has_looked():
    cache.delete_many([*KEYS, *(f"{key}:turn" for key in KEYS)])


def look(*, is_anew: bool = True) -> cockpit.Cockpit:
    return cockpit.look(lambda model: True, is_anew=is_anew)


def presences(count: int, *, ago: timedelta = timedelta(), **values) -> None:
    seen_at = timezone.now() - ago
    WorkerPresence.objects.bulk_create(
        WorkerPresence(host="gpu", pid=pid, seen_at=seen_at, **values) for pid in range(count)
    )


def snapshot(host: str, *, used: int, ago: timedelta = timedelta(), inodes: float = 1.0) -> None:
    system = {
        "name": "media", "mount": "/", "total_bytes": 10**13, "used_bytes": used, "free_bytes": 10**13 - used,
        "percent_used": used / 10**11, "inodes_percent_used": inodes, "roots": ["media"],
    }  # fmt: skip
    made = DiskSnapshot.objects.create(host=host, seconds=1, filesystems=[system], usage={})
    DiskSnapshot.objects.filter(pk=made.pk).update(taken_at=timezone.now() - ago)


class TestClusters:
    def test_that_live_are_seen_behind_any_number_that_died(self):
        presences(55, ago=timedelta(minutes=5), cluster="default")
        presences(2, cluster="training")
        presences(1, cluster="default")

        clusters = look().clusters

        alive = [state.name for state in clusters if state.is_alive]
        missing = [state.name for state in clusters if state.row is None]
        assert alive == ["default", "training", "training"]
        assert missing == ["generation", "scraping"]
        assert len(clusters) == len(alive) + len(missing) + cockpit.MOST_GONE


class TestDisks:
    def test_the_fullest_first_be_it_with_bytes_or_files_and_how_long_it_lasts(self):
        for hours in range(72, -1, -12):
            snapshot("grows", used=(80 - hours // 12) * 10**11, ago=timedelta(hours=hours))
        snapshot("many-files", used=10**12, inodes=97.0)
        snapshot("quiet", used=10**12, ago=timedelta(hours=6))
        snapshot("gone", used=99 * 10**11, ago=timedelta(days=9))

        found = {report.snapshot.host: report.systems[0] for report in look().disks}

        assert list(found) == ["many-files", "grows", "quiet"]
        assert found["many-files"][0].fullness == 97
        assert found["grows"][1].days_left == pytest.approx(10, abs=0.5)

    def test_an_alert_is_told_once(self, admin_client):
        snapshot("a", used=9 * 10**12)
        DiskAlert.objects.create(host="a", filesystem="media", percent_used=91, threshold_percent=85)

        html = admin_client.get("/admin/").content.decode()

        assert html.count("media of a at 91 %") == 1
        assert html.count("A disk is too full: a.") == 1


class TestManyWhoLook:
    def test_ask_the_database_for_nothing_that_somebody_has_just_seen(self):
        first = look(is_anew=False)

        with CaptureQueriesContext(connection) as queries:
            again = look(is_anew=False)

        assert len(queries) == 0
        assert again.queues == first.queues
        assert again.problems == first.problems

    def test_see_what_they_have_just_done(self):
        look(is_anew=False)
        presences(1, cluster="training")

        assert "training" in [state.name for state in look().clusters if state.is_alive]
        assert "training" in [state.name for state in look(is_anew=False).clusters if state.is_alive]

    def test_do_not_wait_for_a_bucket_that_hangs_one_after_the_other(self, monkeypatch):
        look(is_anew=False)
        cache.delete(f"{cockpit.HEALTH_KEY}:turn")  # two seconds have passed
        waiting = []

        def hangs() -> str:
            waiting.append(1)
            assert look(is_anew=False).problems == look().problems  # others who look meanwhile
            return "The bucket does not answer."

        monkeypatch.setattr(storage, "problem", hangs)

        assert look(is_anew=False).problems["storage"] == "The bucket does not answer."
        assert len(waiting) == 1

    def test_what_breaks_is_not_remembered(self):
        def breaks():
            raise ConnectionError

        for _ in range(2):
            with pytest.raises(ConnectionError):
                remembered.lately(cockpit.HEALTH_KEY, breaks, seconds=9)
        assert remembered.lately(cockpit.HEALTH_KEY, dict, seconds=9) == {}
