import json
import socket
from contextlib import nullcontext
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone
from django_q.models import Schedule
from rest_framework.test import APIClient

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import WorkerPresence
from imagehub.operations import disk, health, notify, purges, tasks
from imagehub.operations.filesystems import file_systems
from imagehub.operations.models import DiskAlert, DiskSnapshot, Notice, Purge
from imagehub.operations.tests.factories import GB, DiskSnapshotFactory, file_system
from imagehub.tests.together import at_once

pytestmark = pytest.mark.django_db

HOST = socket.gethostname()


def growing(points=20):
    """A gigabyte a day, for some days."""
    for place in range(points):
        DiskSnapshotFactory(
            ago=timedelta(hours=6 * (points - place)),
            used_percent=40 + place / 4,
            kinds={"media": {"originals": place * GB // 4}},
        )


def alerts():
    """The file systems that were too full, in turn, and whether they still are."""
    rows = DiskAlert.objects.order_by("raised_at")
    return [(alert.filesystem, alert.cleared_at is None) for alert in rows]


class TestFileSystems:
    def test_roots_on_one_are_one(self, small_disk, tmp_path):
        (small_disk / "ballast").write_bytes(b"x" * 2**21)

        small, rest = sorted(file_systems(), key=lambda system: system.total_bytes)

        assert (small.name, small.roots, small.mount) == ("media", ["media"], str(small_disk))
        assert (small.total_bytes, small.used_bytes, small.percent_used) == (2**23, 2**21, 25.0)
        assert rest.name == "models, training, scraping, var"

    def test_one_that_cannot_be_looked_at_is_left_out(self, settings, caplog, monkeypatch):
        settings.NAMED_ROOTS = {"models": "/srv/secret\0"}

        def broken(path, nearest_folder=disk.file_systems.__globals__["nearest_folder"]):
            if "secret" in str(path):
                raise OSError(5, "Input/output error", str(path))
            return nearest_folder(path)

        monkeypatch.setitem(disk.file_systems.__globals__, "nearest_folder", broken)

        assert [system.name for system in file_systems()] == ["media, training, scraping, var"]
        assert "models files cannot be looked at" in caplog.text
        assert "secret" not in caplog.text


class TestAlerts:
    def test_one_for_each_crossing(self, caplog, settings):
        settings.ALERT_EMAILS = ["ops@example.net"]
        for percent in (84.9, 85, 92, 84, 83.5, 86):
            disk.judge([file_system(percent)])
        assert alerts() == [("media, var", True)]

        disk.judge([file_system(82.9)])
        disk.judge([file_system(10)])
        assert alerts() == [("media, var", False)]

        disk.judge([file_system(85)])
        assert alerts() == [("media, var", False), ("media, var", True)]
        events = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
        assert events == ["disk.alert", "disk.alert_cleared", "disk.alert"]
        assert caplog.records[0].levelname == "WARNING"
        told = {name: caplog.records[0].msg[name] for name in ("host", "filesystem", "percent", "threshold")}
        assert told == {"host": HOST, "filesystem": "media, var", "percent": 85.0, "threshold": 85.0}
        assert list(Notice.objects.order_by("created_at").values_list("name", "channel")) == [
            ("disk.alert", "email"), ("disk.alert_cleared", "email"), ("disk.alert", "email"),
        ]  # fmt: skip
        assert "/srv" not in Notice.objects.order_by("created_at")[0].sentence

    def test_the_threshold_holds_at_once(self, set_config):
        disk.judge([file_system(80)])
        set_config("disk: {alert_percent: 70}")
        disk.judge([file_system(80)])
        assert alerts() == [("media, var", True)]

        set_config("disk: {alert_percent: 90}")
        disk.judge([file_system(80)])
        assert alerts() == [("media, var", False)]

    def test_files_may_run_out_before_bytes(self):
        disk.judge([file_system(10, inodes_percent_used=99.0)])

        assert DiskAlert.objects.get().percent_used == 99.0

    def test_a_machine_that_is_no_longer_there_has_no_alerts_and_the_log_says_so(self, caplog):
        for host in ("retired", "at work", "looked at"):
            DiskAlert.objects.create(host=host, filesystem="var", percent_used=99, threshold_percent=85)
        DiskAlert.objects.update(raised_at=timezone.now() - timedelta(days=3))
        for host in ("retired", "at work"):
            DiskSnapshotFactory(host=host, ago=timedelta(hours=5))
            WorkerPresence.objects.create(cluster=Cluster.TRAINING.value, host=host, pid=1)
        WorkerPresence.objects.filter(host="retired").update(seen_at=timezone.now() - timedelta(hours=2))
        DiskSnapshotFactory(host="looked at", ago=timedelta(minutes=50))

        disk.judge([])

        assert set(disk.open_alerts().values_list("host", flat=True)) == {"at work", "looked at"}
        (said,) = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        assert (said["event"], said["host"], said["is_machine_there"]) == (
            "disk.alert_cleared", "retired", False,
        )  # fmt: skip

    def test_a_root_out_of_reach_changes_no_alert(self):
        full = file_system(95, name="media, models, var", roots=["media", "models", "var"])
        disk.judge([full, file_system(90, name="training", roots=["training"])])
        before = alerts()

        disk.judge([file_system(95, name="models, var", roots=["models", "var"])])
        disk.judge([])
        disk.judge([full, file_system(90, name="training", roots=["training"])])
        assert alerts() == before == [("media, models, var", True), ("training", True)]

        disk.judge([file_system(20, name="models, var", roots=["models", "var"])])
        assert alerts() == [("media, models, var", False), ("training", True)]

    def test_roots_that_move_to_a_disk_with_room_take_no_alert_along(self):
        disk.judge([file_system(95)])

        disk.judge(
            [file_system(20, name="media", roots=["media"]), file_system(90, name="var", roots=["var"])]
        )
        disk.judge(
            [file_system(20, name="media", roots=["media"]), file_system(90, name="var", roots=["var"])]
        )

        assert alerts() == [("media, var", False), ("var", True)]

    def test_a_disk_that_really_fills_and_is_emptied(self, small_disk):
        disk.look(is_sample_due=False)
        before = {alert.filesystem for alert in disk.open_alerts()}
        (small_disk / "ballast").write_bytes(b"x" * (7 * 2**20))

        disk.look(is_sample_due=False)
        assert {alert.filesystem for alert in disk.open_alerts()} - before == {"media"}

        (small_disk / "ballast").unlink()
        disk.look(is_sample_due=False)
        assert {alert.filesystem for alert in disk.open_alerts()} == before


@pytest.mark.django_db(transaction=True)
def test_of_many_who_see_it_one_raises_it(settings):
    settings.ALERT_EMAILS = ["ops@example.net"]

    at_once(lambda percent: disk.judge([file_system(percent)]), [90] * 4)
    assert (DiskAlert.objects.count(), Notice.objects.count()) == (1, 1)

    at_once(lambda percent: disk.judge([file_system(percent)]), [20] * 4)
    assert (disk.open_alerts().count(), Notice.objects.count()) == (0, 2)


class TestLook:
    def test_remembers_what_takes_how_much(self, tmp_path):
        (tmp_path / "media/images/ab").mkdir(parents=True)
        (tmp_path / "media/images/ab/a.png").write_bytes(b"x" * 123)

        taken = disk.look()

        assert taken == disk.latest() == disk.latest(HOST)
        assert taken.usage["media"]["originals"] == {"bytes": 123, "files": 1}
        assert disk.systems_of(taken)[0].total_bytes > 0

    def test_is_taken_once_in_each_turn_of_the_clock(self, set_config, monkeypatch):
        def look_at(hour, minute=0):
            now = timezone.now().replace(year=2026, month=3, day=1, hour=hour, minute=minute)
            monkeypatch.setattr(timezone, "now", lambda: now)
            if taken := disk.look():
                DiskSnapshot.objects.filter(pk=taken.pk).update(taken_at=now)
            return taken is not None

        assert [look_at(1), look_at(1, 5), look_at(5, 55), look_at(6, 3), look_at(6, 8), look_at(19)] == [
            True, False, False, True, False, True,
        ]  # fmt: skip
        set_config("disk: {sample_hours: 1}")
        assert [look_at(19, 5), look_at(20)] == [False, True]

    def test_of_two_at_once_one_does_it(self):
        with disk._alone() as first:
            assert first
            assert disk.look() is None
        assert disk.look() is not None

    @pytest.mark.parametrize(
        ("origin", "minutes", "is_taken"),
        [("clock", 9, False), ("person", 1, False), ("clock", 11, True), ("command", 1, True)],
    )
    def test_one_worker_stays_free_while_the_other_purges(self, origin, minutes, is_taken):
        purge = Purge.objects.create(
            kind=next(purges.kinds(cluster=Cluster.DEFAULT)).name,
            origin=origin,
            older_than_days=1,
            state=Purge.State.WORKING,
            worked_at=timezone.now() - timedelta(minutes=minutes),
        )
        assert (disk.look() is not None) == is_taken

        Purge.objects.filter(pk=purge.pk).update(state=Purge.State.DONE)
        assert (disk.look() is None) == is_taken

    def test_what_waits_is_sent_though_the_walk_breaks(self, settings, monkeypatch):
        settings.ALERT_EMAILS = ["ops@example.net"]
        notify.announce("disk.alert", "The disk is full.", {})
        monkeypatch.setattr(disk, "usage_of_roots", lambda: 1 / 0)

        with pytest.raises(ZeroDivisionError):
            disk.look()

        assert Notice.objects.get(name="disk.alert", sentence="The disk is full.").sent_at

    def test_forgets_what_is_long_ago(self, set_config):
        set_config("disk: {remembered_days: 7}")
        DiskSnapshotFactory(ago=timedelta(days=8))
        kept = DiskSnapshotFactory(ago=timedelta(days=6))

        taken = disk.look()

        assert set(DiskSnapshot.objects.all()) == {kept, taken}

    def test_the_clock_calls_it(self):
        schedule = Schedule.objects.get(name="Look at disks")
        assert (schedule.func, schedule.minutes) == ("imagehub.operations.tasks.look_at_disks", 5)

        tasks.look_at_disks()

        assert disk.latest() is not None


class TestHealth:
    def test_is_well_without_a_snapshot_as_long_as_there_is_time(self):
        WorkerPresence.objects.create(cluster=Cluster.DEFAULT.value, host=HOST, pid=1)
        assert "disk" not in health.problems()

        WorkerPresence.objects.update(started_at=timezone.now() - timedelta(hours=13))
        assert health.problems()["disk"] == "The disks were last looked at 13 hours ago."

    def test_names_a_look_that_is_overdue_and_a_disk_that_is_too_full(self):
        DiskSnapshotFactory(ago=timedelta(hours=11))
        assert "disk" not in health.problems()
        disk.judge([file_system(90)])
        assert health.problems()["disk"] == f"A disk is too full: {HOST}."

        DiskSnapshot.objects.update(taken_at=timezone.now() - timedelta(hours=13))
        assert "13 hours" in health.problems()["disk"]
        assert "disk" in health.NOT_NEEDED_TO_SERVE


class TestStats:
    @pytest.fixture
    def staff(self):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))
        return client

    def test_tells_how_full_they_are_and_when_they_will_be(self, staff):
        growing()
        disk.judge([file_system(91)])

        body = staff.get("/api/admin/disk-stats").json()

        newest = disk.latest()
        assert body["generated_at"] == newest.taken_at.isoformat().replace("+00:00", "Z")
        assert (body["threshold_percent"], body["sample_hours"]) == (85.0, 6)
        (system,) = body["filesystems"]
        assert (system["host"], system["name"], system["usage"]["path"]) == (HOST, "media, var", "/srv")
        assert system["forecast"]["growth_bytes_per_day"] == pytest.approx(GB, rel=0.01)
        assert system["forecast"]["days_left"] == pytest.approx(55, abs=0.5)
        (volume,) = body["volumes"]
        assert (volume["label"], volume["size_bytes"], volume["files"]) == ("media", 19 * GB // 4, 3)
        assert volume["kinds"][0]["growth_bytes_per_day"] == pytest.approx(GB, rel=0.01)
        assert volume["days_left"] == system["forecast"]["days_left"]
        assert [alert["filesystem"] for alert in body["alerts"]] == ["media, var"]
        assert len(body["history"]) == 20
        assert body["history"][-1]["volumes"] == {"media": {"originals": 19 * GB // 4}}

    def test_the_reserve_is_not_ours_to_fill(self, staff, set_config):
        set_config(f"storage: {{minimum_free_bytes: {50 * GB}}}")
        growing()

        (system,) = staff.get("/api/admin/disk-stats").json()["filesystems"]

        assert system["forecast"]["days_left"] == pytest.approx(5, abs=0.5)

    def test_goes_back_so_far_and_costs_no_more_queries_for_it(self, staff, django_assert_max_num_queries):
        growing(60)

        with django_assert_max_num_queries(14):
            body = staff.get("/api/admin/disk-stats?days=2").json()

        assert len(body["history"]) == 7

    def test_of_many_snapshots_some_are_shown_and_the_newest(self):
        growing(30)

        shown = disk.history(HOST, days=30, most=10)

        assert len(shown) == 10
        assert shown[-1] == disk.latest()
        assert shown == sorted(shown, key=lambda row: row.taken_at)

    def test_a_machine_that_has_gone_is_left_out(self, staff):
        DiskSnapshotFactory(host="retired", ago=timedelta(days=3))
        DiskSnapshotFactory(host="alive")

        body = staff.get("/api/admin/disk-stats").json()

        assert {system["host"] for system in body["filesystems"]} == {"alive"}

    @pytest.mark.parametrize("query", ["days=0", "days=many", "day=3"])
    def test_what_makes_no_sense_is_refused(self, staff, query):
        assert staff.get(f"/api/admin/disk-stats?{query}").status_code == 400

    def test_nothing_is_known_yet(self, staff):
        body = staff.get("/api/admin/disk-stats").json()

        assert (body["generated_at"], body["volumes"], body["history"]) == (None, [], [])


class TestCommand:
    def run(self, *args, fails=False):
        out = StringIO()
        with pytest.raises(SystemExit) if fails else nullcontext():
            call_command("disk_usage", *args, stdout=out, stderr=out)
        return out.getvalue()

    def test_shows_what_is_known(self, set_config):
        set_config("disk: {alert_percent: 100}\nstorage: {minimum_free_bytes: 0}")
        assert "use --sample" in self.run()

        told = self.run("--sample")

        assert "media" in told
        assert "originals" in told
        assert DiskSnapshot.objects.count() == 1

    def test_fails_over_the_threshold(self, set_config):
        set_config("disk: {alert_percent: 1}\nstorage: {minimum_free_bytes: 0}")

        told = json.loads(self.run("--json", fails=True))

        assert told["threshold_percent"] == 1.0
        assert told["filesystems"][0]["percent_used"] > 1
        assert told["volumes"] == {}
