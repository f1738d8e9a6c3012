"""Purges of jobs: which rows go, and what those that stay can still tell."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone
from rest_framework.test import APIClient

from albums.image_lineage import image_node
from albums.lineage import trace
from albums.tests.factories import ImageFactory
from generation import services
from generation.models import GenerationJob, SetRun
from generation.services import purging
from generation.services.control import JobGone, SetRunGone
from generation.tests.factories import GenerationJobFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.in_use import register, unregister
from imagehub.jobs.models import Audience, JobStatus
from imagehub.operations import walking
from imagehub.operations.tests.killing import killed_at

pytestmark = pytest.mark.django_db


def job(days=40, status=JobStatus.FAILED, **fields):
    then = timezone.now() - timedelta(days=days)
    return GenerationJobFactory(**{"status": status, "finished_at": then, "created_at": then} | fields)


def set_run(*statuses, days=40, **fields):
    """A set run of one job for each status."""
    owner = UserFactory(staff=True)
    then = timezone.now() - timedelta(days=days)
    run = SetRun.objects.create(owner=owner, theme="linocut", total=len(statuses), created_at=then)
    items = [
        job(days, status, owner=owner, set_run=run, set_index=index, **fields)
        for index, status in enumerate(statuses)
    ]
    return run, items


def made_by(row, **fields):
    return ImageFactory(source_kind="generation", source_id=row.pk, **fields)


def purge(days=30, **options):
    return purging.purge_jobs(cutoff=timezone.now() - timedelta(days=days), **options)


def left():
    return set(GenerationJob.objects.all())


class TestJobs:
    @pytest.mark.parametrize("is_dry_run", [True, False])
    def test_go_when_no_picture_is_left(self, is_dry_run):
        gone = [job(status=status, error_trace="x" * 10) for status in JobStatus.FINISHED]
        Audience.objects.create(job=gone[0].pk, until=timezone.now(), preview=b"x" * 100)
        shown, trashed = job(status="completed"), job(status="completed")
        made_by(shown)
        made_by(trashed, deleted_at=timezone.now())
        ImageFactory(source_kind="scrape", source_id=gone[1].pk)  # a crawl of the same number
        recent = job(days=20)

        freed = purge(is_dry_run=is_dry_run)

        assert (freed.jobs, freed.kept, freed.bytes) == (3, 2, 130)
        assert left() == {shown, trashed, recent} | (set(gone) if is_dry_run else set())
        assert Audience.objects.exists() == is_dry_run

    def test_that_have_not_ended_are_never_touched(self):
        waiting = GenerationJobFactory(status="queued", created_at=timezone.now() - timedelta(days=400))
        running = GenerationJobFactory(status="running", token=uuid.uuid4(), lease_until=timezone.now())
        GenerationJob.objects.update(created_at=timezone.now() - timedelta(days=400))
        assert purge(days=0).jobs == 0
        assert left() == {waiting, running}

    def test_that_a_picture_comes_from_keep_what_it_was_made_with_and_nothing_else(self):
        row = job(error_trace="trace", idempotency_key="key", body_digest="digest")
        image = made_by(row)
        before = GenerationJob.objects.values().get()

        assert purge(is_dry_run=True).slimmed == 1
        assert GenerationJob.objects.values().get() == before
        assert purge().slimmed == 1
        assert GenerationJob.objects.values().get() == before | purging.NOT_NEEDED
        assert purge().slimmed == 0

        row.refresh_from_db()
        origins = trace(image_node(image), UserFactory(staff=True))
        assert f"/api/jobs/{row.pk}" in str(origins)
        assert services.retry_generation_job(row, owner=row.owner).prompt == row.prompt

    def test_that_are_tried_again_just_now_stay_and_others_let_go_of_their_retries(self):
        tried, old = job(), job()
        GenerationJobFactory(status="queued", retry_of=tried)
        retry = job(days=10, retry_of=old)

        assert purge().jobs == 1
        assert tried in left()
        retry.refresh_from_db()
        assert retry.retry_of is None

    def test_that_are_gone_are_not_tried_again(self):
        row = job()
        assert purge().jobs == 1
        with pytest.raises(JobGone):
            services.retry_generation_job(row, owner=row.owner)
        assert not GenerationJob.objects.exists()

    def test_that_are_kept_are_locked_once(self, monkeypatch):
        made_by(job(status="completed", error_trace="trace"))
        assert purge().slimmed == 1
        monkeypatch.setattr(purging, "_hold", None)
        assert purge().kept == 1

    def test_that_something_else_needs_stay(self):
        needed, other = job(), job()

        def check(keys):
            return {pk: "A report quotes it." for pk in keys if pk == needed.pk}

        register(GenerationJob, check)
        try:
            assert purge().jobs == 1
        finally:
            unregister(GenerationJob, check)
        assert left() == {needed}
        assert other not in left()

    def test_go_in_batches_and_the_oldest_first_where_there_is_a_limit(self, monkeypatch):
        monkeypatch.setattr(walking, "BATCH", 2)
        rows = [job(days=days) for days in (40, 90, 70, 50, 60, 80)]
        beats = []

        assert purge(limit=3, on_progress=lambda: beats.append(1)).jobs == 3
        assert left() == {rows[0], rows[3], rows[4]}
        assert len(beats) == 2
        assert purge().jobs == 3


class TestSetRuns:
    @pytest.mark.parametrize("is_dry_run", [True, False])
    def test_go_with_all_their_jobs(self, is_dry_run):
        run, [first, *_] = set_run("failed", "completed", "cancelled")
        job(owner=run.owner, set_run=run, set_index=0, retry_of=first)

        freed = purge(is_dry_run=is_dry_run)

        assert (freed.set_runs, freed.jobs, freed.kept) == (1, 4, 0)
        assert SetRun.objects.exists() == GenerationJob.objects.exists() == is_dry_run

    def test_stay_as_they_ended_while_one_of_their_pictures_is_left(self):
        run, [failed, completed, cancelled] = set_run("failed", "completed", "cancelled")
        retry = job(owner=run.owner, set_run=run, set_index=0, retry_of=failed)
        made_by(completed)
        before = services.progress_of([run])[run.pk]

        freed = purge()

        assert (freed.set_runs, freed.jobs) == (0, 1)
        assert left() == {retry, completed, cancelled}
        SetRun.objects.update(outcome=None)
        assert services.progress_of([run])[run.pk] == before
        assert services.retry_set_run(run, owner=run.owner) == 2

    def test_of_which_something_has_not_ended_stay(self):
        run, [_, late] = set_run("failed", "completed")
        GenerationJob.objects.filter(pk=late.pk).update(finished_at=timezone.now())
        assert purge().set_runs == 0
        assert GenerationJob.objects.filter(set_run=run).count() == 2

    def test_that_are_empty_go_and_what_is_larger_than_the_limit_does_not(self):
        set_run()
        run, _ = set_run("failed", "failed")
        freed = purge(limit=1)
        assert (freed.set_runs, freed.jobs) == (1, 0)
        assert list(SetRun.objects.all()) == [run]

    def test_that_are_gone_are_not_retried(self):
        run, items = set_run("failed")
        assert purge().set_runs == 1
        with pytest.raises(SetRunGone):
            services.retry_set_run(run, owner=run.owner)
        with pytest.raises(SetRunGone):
            services.retry_generation_job(items[0], owner=run.owner)


@pytest.mark.parametrize("limit", [None, 2, 3, 4, 5])
def test_a_rehearsal_tells_the_same(limit, monkeypatch):
    monkeypatch.setattr(walking, "BATCH", 3)
    first, _ = set_run("failed", "completed", days=60, error_trace="trace")
    job(50, owner=first.owner, set_run=first, set_index=0)
    _, [_, completed] = set_run("failed", "completed", days=55, idempotency_key="")
    for days in (70, 65, 50, 45):
        made_by(job(days, status="completed", error_trace="x"))
        Audience.objects.create(job=job(days).pk, until=timezone.now(), preview=b"x" * 100)
    made_by(completed)

    told = purge(is_dry_run=True, limit=limit)
    assert told == purge(limit=limit)


class TestAtTheSameTime:
    pytestmark = pytest.mark.django_db(transaction=True)

    def test_a_set_run_is_retried_or_purged(self, monkeypatch):
        run, _ = set_run("failed", "failed")
        ended, threads, answers = purging._ended, [], []

        def retry():
            try:
                answers.append(services.retry_set_run(run, owner=run.owner))
            except SetRunGone:
                answers.append(0)
            finally:
                connections.close_all()

        def meanwhile(runs, cutoff):
            found = list(ended(runs, cutoff))
            if connection.in_atomic_block and not threads:  # its row is locked, and it is found to have ended
                threads.append(threading.Thread(target=retry))
                threads[0].start()
                threads[0].join(0.3)
            return found

        monkeypatch.setattr(purging, "_ended", meanwhile)
        freed = purge()
        threads[0].join(60)

        assert (freed.set_runs, freed.jobs, answers) == (1, 2, [0])
        assert not GenerationJob.objects.exists()


class TestAPurgeThatIsKilled:
    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.mark.parametrize(
        ("name", "call"),
        [("_delete", 1), ("_delete", 2), ("_bytes", 2), ("in_use", 2), ("_last_of_their_rows", 2)],
    )
    def test_is_gone_on_with_by_the_next(self, name, call, monkeypatch):
        monkeypatch.setattr(walking, "BATCH", 2)
        for _ in range(3):
            job()
        kept = job(status="completed")
        made_by(kept)
        run, _ = set_run("failed", "completed", "failed")

        killed_at(purging, name, purge, call=call)

        assert GenerationJob.objects.filter(set_run=run).count() in {0, 3}  # all of it, or nothing
        purge()
        assert left() == {kept}
        assert not SetRun.objects.exists()


def test_the_records_are_for_staff():
    client = APIClient()
    client.force_authenticate(UserFactory())
    assert client.post("/api/jobs/artifacts/purge", {}, format="json").status_code == 403
