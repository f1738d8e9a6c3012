"""Whoever changes many jobs at once changes them in one order, so that of two neither ends the other."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from albums.services import delete_album, merge_albums
from albums.tests.factories import AlbumFactory
from generation import services
from generation.models import GenerationJob, SetRun
from generation.services import control, submitting
from generation.tests.factories import GenerationJobFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.identifiers import new_id
from imagehub.jobs.models import JobStatus
from imagehub.tests.together import at_once, beside

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time"),
]

JOBS = 1500


@pytest.fixture
def album():
    return AlbumFactory()


@pytest.fixture(autouse=True)
def jobs(album):
    """Many jobs whose order in the index of the claim is the opposite of that of their keys."""
    pattern = GenerationJobFactory(album=album, status=JobStatus.QUEUED)
    names = [field.attname for field in GenerationJob._meta.concrete_fields if field.name != "id"]
    fields = {name: getattr(pattern, name) for name in names}
    return GenerationJob.objects.bulk_create(
        GenerationJob(**fields | {"id": new_id(), "priority": number % 200, "idempotency_key": ""})
        for number in range(JOBS)
    )


def walking(action):
    """Let PostgreSQL walk through an index, as it does where a table is large: not in the order in which rows lie."""

    def act():
        with connection.cursor() as cursor:
            cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
        action()

    return act


def together(*actions):
    at_once(lambda action: action(), [walking(action) for action in actions])


def cancel_what_waits():
    services.cancel_generation_jobs(status=JobStatus.QUEUED)


def test_of_merging_albums(album):
    target = AlbumFactory()

    together(cancel_what_waits, lambda: merge_albums(target, [album]))

    assert not GenerationJob.objects.active().exists()
    assert GenerationJob.objects.filter(album=target).count() == JOBS + 1


def test_of_deleting_an_album(album):
    together(cancel_what_waits, lambda: delete_album(album))

    assert not GenerationJob.objects.active().exists()
    assert GenerationJob.objects.filter(album=None).count() == JOBS + 1


@pytest.fixture
def set_run(album):
    run = SetRun.objects.create(owner=UserFactory(staff=True), album=album, theme="hearts", total=1)
    GenerationJobFactory(
        album=album, set_run=run, set_index=0, status=JobStatus.FAILED, finished_at=timezone.now()
    )
    return run


def free_while(action, rows):
    """Begin something that has to wait for us, and tell whether rows are nobody's meanwhile."""
    thread = beside(action)
    until = time.monotonic() + 10
    while not somebody_waits():
        assert time.monotonic() < until, "it does not wait for us"
        time.sleep(0.01)
    return thread, list(rows.select_for_update(skip_locked=True))


def somebody_waits():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))")
        return cursor.fetchone() is not None


@pytest.mark.parametrize(
    "change", [delete_album, lambda album: merge_albums(AlbumFactory(), [album])], ids=["delete", "merge"]
)
def test_who_changes_an_album_holds_its_set_runs_before_their_jobs(album, set_run, change):
    """For a purge holds a set run, and then deletes its jobs."""
    with transaction.atomic():
        control.hold_set_run(set_run.pk)
        thread, free = free_while(lambda: change(album), GenerationJob.objects.filter(set_run=set_run))
    thread.join()

    assert len(free) == 1
    set_run.refresh_from_db()
    assert set_run.album != album


def test_who_tries_a_job_again_holds_its_album_before_its_set_run(album, set_run):
    """For who merges albums holds them, and then lets set runs follow."""
    job = GenerationJob.objects.get(set_run=set_run)
    with transaction.atomic():
        submitting.hold_albums([album])
        again = lambda: services.retry_generation_job(job, owner=job.owner)  # noqa: E731
        thread, free = free_while(again, SetRun.objects.filter(pk=set_run.pk))
    thread.join()

    assert free == [set_run]
    assert GenerationJob.objects.filter(set_run=set_run, retry_of=job).exists()


def test_the_reaper_waits_for_nobody(jobs):
    GenerationJob.objects.filter(pk=jobs[0].pk).update(
        status=JobStatus.RUNNING, token=uuid.uuid4(), lease_until=timezone.now() - timedelta(minutes=1)
    )
    with transaction.atomic():
        GenerationJob.objects.select_for_update().get(pk=jobs[0].pk)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(reap_elsewhere).result(timeout=10) == 0

    assert GenerationJob.objects.reap() == 1


def reap_elsewhere():
    try:
        return GenerationJob.objects.reap()
    finally:
        connections.close_all()


def test_whoever_locks_looks_again_at_what_changed_meanwhile(jobs):
    """A job that somebody else has cancelled is not among those that are cancelled now."""
    reached = []
    half = [job.pk for job in jobs[::2]]

    def cancel(ids):
        reached.append(GenerationJob.objects.filter(pk__in=ids).request_cancel())

    at_once(cancel, [half, [job.pk for job in jobs], half[::-1]])

    assert sum(reached) == JOBS


def test_there_is_no_lock_without_a_transaction():
    with pytest.raises(transaction.TransactionManagementError):
        GenerationJob.objects.filter(pk=uuid.uuid4()).locked_in_order()
