"""Several people and programs at once: one set run for one key, one retry, and no picture for an album that has gone."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connections, transaction

from albums.models import Album
from albums.services import AlbumGone, delete_album
from albums.tests.factories import AlbumFactory
from generation import services
from generation.models import GenerationJob, SetRun
from generation.tests.decks import THEME, make_deck
from generation.tests.factories import GenerationJobFactory, ReadyAdapterFactory, starter_model
from imagehub.accounts.tests.factories import UserFactory
from imagehub.in_use import InUse
from training.models import Adapter
from training.services import AdapterMissing, delete_adapter

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = 6


@pytest.fixture
def owner():
    starter_model()
    return UserFactory(staff=True)


def submit(owner, deck, *, album=None, key="", digest="") -> tuple[SetRun, bool]:
    run = SetRun(
        owner=owner, template=deck, theme=THEME, album=album, idempotency_key=key, body_digest=digest
    )
    return services.submit_set_run(run, GenerationJobFactory.build(owner=owner))


def together(*acts):
    """Do things at the same moment, each in a thread of its own; return what came of them, failures included."""
    start = Barrier(len(acts))

    def do(act):
        try:
            start.wait(10)
            return act()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(do, act) for act in acts]]


def test_the_same_request_sent_many_times_at_once_is_one_run(owner):
    deck = make_deck()

    outcomes = together(*[lambda: submit(owner, deck, key="k", digest="d")] * AT_ONCE)

    assert {run.pk for run, _ in outcomes} == {SetRun.objects.get().pk}
    assert sum(is_new for _, is_new in outcomes) == 1
    assert GenerationJob.objects.count() == 3
    assert Album.objects.filter(is_set_template=False).count() == 1


def test_the_same_request_gets_its_job_though_it_took_the_last_place_itself(owner, set_config):
    set_config("generation: {max_queued: 1}\nstorage: {minimum_free_bytes: 0}")

    def ask():
        job = GenerationJobFactory.build(owner=owner, idempotency_key="k", body_digest="d")
        return services.submit_generation(job)

    outcomes = together(*[ask] * AT_ONCE)

    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert {job.pk for job, _ in outcomes} == {GenerationJob.objects.get().pk}


def test_an_adapter_that_is_deleted_at_this_moment_is_kept_or_told_to_be_gone(owner):
    for _ in range(8):
        adapter = ReadyAdapterFactory()
        loras = [{"id": str(adapter.pk), "name": adapter.name, "weight": 1.0}]

        submitted, deleted = together(
            lambda loras=loras: services.submit_generation(
                GenerationJobFactory.build(owner=owner, loras=loras)
            ),
            lambda adapter=adapter: delete_adapter(adapter),
        )

        if isinstance(submitted, tuple):
            assert isinstance(deleted, InUse)
        else:
            assert (type(submitted), deleted) == (AdapterMissing, None)
    names = {lora["id"] for job in GenerationJob.objects.all() for lora in job.loras}
    assert names == {str(pk) for pk in Adapter.objects.values_list("pk", flat=True)}


def test_of_many_retries_at_once_one_retries(owner):
    run, _ = submit(owner, make_deck())
    services.cancel_set_run(run)

    outcomes = together(*[lambda: services.retry_set_run(run, owner=owner)] * AT_ONCE)

    assert sorted(map(str, outcomes))[0] == "3"
    assert sum(isinstance(outcome, services.NothingToRetry) for outcome in outcomes) == AT_ONCE - 1
    assert GenerationJob.objects.filter(set_run=run).count() == 6


def test_an_album_that_is_deleted_at_this_moment_has_its_jobs_or_is_told_to_be_gone(owner):
    deck = make_deck()
    for _ in range(5):
        album = AlbumFactory()

        outcome, _ = together(
            lambda album=album: submit(owner, deck, album=album), lambda album=album: delete_album(album)
        )

        if isinstance(outcome, AlbumGone):
            continue
        run, is_new = outcome
        assert is_new
        run.refresh_from_db()
        assert run.album is None
        assert set(run.items.values_list("album", flat=True)) == {None}


def test_the_same_for_a_single_job(owner):
    for _ in range(5):
        album = AlbumFactory()

        outcome, _ = together(
            lambda album=album: services.submit_generation(
                GenerationJobFactory.build(owner=owner, album=album)
            ),
            lambda album=album: delete_album(album),
        )

        assert isinstance(outcome, AlbumGone | tuple)
    assert not GenerationJob.objects.exclude(album=None).exists()


def test_a_run_that_is_taken_back_leaves_nothing(owner):
    with pytest.raises(RuntimeError), transaction.atomic():
        submit(owner, make_deck())
        raise RuntimeError

    assert not SetRun.objects.exists()
    assert not GenerationJob.objects.exists()
