"""A worker whose disk is full takes no job; what waits says why, and begins when there is room."""

from dataclasses import replace

import pytest

from imagehub.jobs import presence, runner
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import WorkerPresence
from imagehub.jobs.outlook import look_ahead
from imagehub.jobs.registry import get_kind, kinds, register
from imagehub.jobs.runner import run_next, work_off
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = pytest.mark.django_db

MIB = 1024 * 1024


@pytest.fixture
def errands():
    """Errands that write to the media root."""
    plain = get_kind("errand")
    register(replace(plain, writes_to=["media"]))
    yield
    register(plain)
    runner._without_room.clear()
    runner._facts_told_at = float("-inf")


def outlook(job):
    return look_ahead(get_kind("errand"), [job])[job.pk]


def tell_facts():
    runner._facts_told_at = float("-inf")
    work_off(Cluster.SCRAPING)


@pytest.mark.usefixtures("errands")
def test_a_job_waits_while_the_disk_is_full_and_is_done_when_it_is_not(small_disk, set_config, caplog):
    set_config(f"storage: {{minimum_free_bytes: {2 * MIB}}}")
    presence.announce(Cluster.SCRAPING)
    (small_disk / "ballast").write_bytes(b"x" * (6 * MIB + 4096))
    job = ErrandFactory()

    tell_facts()
    tell_facts()

    job.refresh_from_db()
    assert (job.status, job.attempt) == ("queued", 0)
    assert not outlook(job).is_possible
    assert (
        outlook(job).reason == "The disk of the media files is full: nothing is begun until space is freed."
    )
    assert len([record for record in caplog.records if "No errand jobs are taken" in record.message]) == 1

    (small_disk / "ballast").unlink()
    tell_facts()

    job.refresh_from_db()
    assert (job.status, job.attempt) == ("completed", 1)
    tell_facts()
    assert outlook(ErrandFactory()).is_possible


@pytest.mark.usefixtures("errands")
def test_what_has_changed_is_told_before_a_job_begins_that_may_take_hours(monkeypatch):
    presence.announce(Cluster.SCRAPING)
    told = []
    kind = replace(get_kind("errand"), perform=lambda job, lease: told.append(facts()))

    def facts():
        return WorkerPresence.objects.get().facts.get(presence.WITHOUT_ROOM)

    monkeypatch.setattr(runner, "lack_of_room", lambda names: "The disk is full.")
    ErrandFactory()
    assert not run_next(kind)
    assert facts() == {"errand": "The disk is full."}

    monkeypatch.setattr(runner, "lack_of_room", lambda names: "")
    assert run_next(kind)
    assert told == [None]


@pytest.mark.usefixtures("errands")
def test_one_machine_that_has_room_is_enough():
    for without_room in ({}, {"errand": "The disk is full."}):
        facts = {presence.WITHOUT_ROOM: without_room}
        WorkerPresence.objects.create(cluster=Cluster.SCRAPING.value, host="box", pid=1, facts=facts)
    job = ErrandFactory()

    assert outlook(job).is_possible

    WorkerPresence.objects.filter(facts=facts).update(pid=2)
    WorkerPresence.objects.filter(pid=1).delete()
    assert outlook(job).reason == "The disk is full."


@pytest.mark.usefixtures("errands")
def test_a_disk_that_cannot_be_looked_at_is_no_room(monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("shutil.disk_usage", broken)
    job = ErrandFactory()

    assert not run_next(get_kind("errand"))

    job.refresh_from_db()
    assert job.status == "queued"


def test_every_kind_of_job_says_where_it_writes():
    assert {kind.name: list(kind.writes_to) for kind in kinds() if kind.name != "errand"} == {
        "generation": ["media"],
        "labeling": ["var"],
        "scraping": ["scraping", "media"],
        "training": ["training", "models"],
    }
