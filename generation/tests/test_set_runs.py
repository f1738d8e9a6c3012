"""Set runs: submitted together, made by the real engine, in the order of their rows, retried where they failed."""

import random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from albums.models import Album, AlbumImage, Image, Visibility
from albums.services import AlbumGone, add_images_to_album, delete_album, merge_albums
from albums.set_templates import NotASet
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from generation import services
from generation.models import MAX_SEED, GenerationJob, SetRun, derive_seed
from generation.services import making
from generation.tests.decks import ROWS, THEME, make_deck, many_rows
from generation.tests.factories import GenerationJobFactory, ReadyAdapterFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Invalid
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.lease import Lease
from imagehub.jobs.models import JobStatus
from imagehub.jobs.tasks import answer_doorbell
from training.models import BaseModel
from training.services import AdapterMissing

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    return UserFactory(staff=True)


@pytest.fixture
def submit(owner):
    def submit(deck=None, *, rows=None, album=None, album_name="", key="", digest="", **fields) -> SetRun:
        run = SetRun(
            owner=owner,
            template=deck or make_deck(),
            theme=THEME,
            album=album,
            idempotency_key=key,
            body_digest=digest,
        )
        pattern = GenerationJobFactory.build(owner=owner, **fields)
        return services.submit_set_run(run, pattern, rows=rows, album_name=album_name)[0]

    return submit


def jobs_of(run: SetRun) -> list[GenerationJob]:
    return list(GenerationJob.objects.filter(set_run=run).order_by("set_index", "id"))


def finish(job: GenerationJob, *, status=JobStatus.COMPLETED) -> None:
    """End a queued job as a worker would."""
    assert GenerationJob.objects.filter(pk=job.pk).claim(worker="test")
    job.refresh_from_db()
    lease = Lease(job)
    if status == JobStatus.FAILED:
        lease.fail("engine_error", "The engine failed.")
    else:
        services.generate_images(job, lease)()


@pytest.fixture
def drawn(monkeypatch):
    """Stand in for the engine where only the order of things matters."""

    def make(production, image):
        color = tuple(random.Random(str(production.job.pk)).randbytes(3))
        production._file(image).write_bytes(picture(color=color))
        production._made = making._Made(image, dict)

    monkeypatch.setattr(making._Production, "_make", make)


def names_in(album: Album) -> list[str]:
    return [image.name for image in Image.objects.in_album(album).order_by("position", "id")]


class TestSubmit:
    def test_makes_a_job_for_each_row_with_its_prompt_name_and_seed(self, submit):
        run = submit(seed=MAX_SEED)

        jobs = jobs_of(run)
        assert (run.total, [job.set_index for job in jobs]) == (3, [0, 1, 2])
        assert [job.name for job in jobs] == ["Ace", "Two", "Three"]
        assert [job.seed for job in jobs] == [MAX_SEED, 0, 1]
        assert {job.status for job in jobs} == {JobStatus.QUEUED}
        assert all(
            row["what"] in job.prompt and THEME in job.prompt for row, job in zip(ROWS, jobs, strict=True)
        )
        assert {job.owner for job in jobs} == {run.owner}

    def test_is_claimed_in_the_order_of_the_rows(self, submit):
        run = submit()

        claimed = [GenerationJob.objects.claim(worker="test").set_index for _ in jobs_of(run)]

        assert claimed == [0, 1, 2]

    def test_makes_an_album_called_after_the_set(self, submit):
        album = submit(make_deck(visibility="public"), visibility="public").album

        assert (album.kind, album.visibility) == ("set", "public")
        assert album.name.startswith("a deck 20")
        assert submit(album_name="for aunt May").album.name == "for aunt May"
        assert not album.is_set_template

    def test_some_rows_have_the_seeds_they_have_in_the_whole_set(self, submit):
        deck = make_deck()
        whole = submit(deck, seed=7, seed_mode="random")

        some = submit(deck, seed=7, seed_mode="random", rows=[2, 0])

        assert [job.set_index for job in jobs_of(some)] == [0, 2]
        assert [job.seed for job in jobs_of(some)] == [jobs_of(whole)[index].seed for index in (0, 2)]
        assert jobs_of(whole)[2].seed == derive_seed(7, "random", 2)

    @pytest.mark.parametrize(
        ("rows", "pointer", "code"),
        [([], "/rows", "empty"), ([3], "/rows/0", "out_of_range"), ([0, 1, 0], "/rows/2", "duplicate")],
    )
    def test_refuses_rows_that_are_not_there(self, submit, rows, pointer, code):
        with pytest.raises(Invalid) as caught:
            submit(rows=rows)

        assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [(pointer, code)]

    def test_is_all_or_nothing(self, submit, set_config):
        set_config("generation: {max_queued: 2}\nstorage: {minimum_free_bytes: 0}")

        with pytest.raises(services.QueueFull):
            submit()

        assert (SetRun.objects.count(), GenerationJob.objects.count()) == (0, 0)
        assert Album.objects.filter(is_set_template=False).count() == 0

    def test_a_public_album_does_not_name_a_private_set(self, submit):
        deck = make_deck()
        deck.visibility = Visibility.PRIVATE
        deck.save()

        album = submit(deck, visibility=Visibility.PUBLIC).album

        assert deck.name not in album.name + album.description

    def test_an_album_that_is_no_set_has_nothing_to_make(self, submit):
        with pytest.raises(NotASet):
            submit(AlbumFactory())

    def test_an_album_deleted_at_this_moment_is_named(self, submit):
        album = AlbumFactory()
        Album.objects.filter(pk=album.pk).delete()

        with pytest.raises(AlbumGone):
            submit(album=album)

    def test_a_set_deleted_at_this_moment_is_named(self, submit):
        deck = make_deck()
        Album.objects.filter(pk=deck.pk).delete()

        with pytest.raises(AlbumGone):
            submit(deck)

    def test_the_same_key_answers_the_same_run_and_another_body_is_a_conflict(self, submit):
        deck = make_deck()
        first = submit(deck, key="k", digest="d")

        assert submit(deck, key="k", digest="d") == first
        with pytest.raises(services.KeyUsedDifferently):
            submit(deck, key="k", digest="other")
        assert GenerationJob.objects.count() == 3

    def test_costs_the_same_queries_however_many_rows_there_are(self, submit):
        def queries(rows: int) -> int:
            deck = make_deck(many_rows(rows))
            with CaptureQueriesContext(
                connection,
            ) as queries:
                submit(deck)
            return len(queries)

        queries(1)
        assert queries(3) == queries(300)


class TestTenThousand:
    def test_are_submitted_together(self, submit):
        run = submit(make_deck(many_rows(10_000)))

        assert GenerationJob.objects.queued().filter(set_run=run).count() == 10_000


@pytest.mark.usefixtures("drawn")
class TestOrder:
    def in_order(self, run, order) -> None:
        jobs = jobs_of(run)
        for index in order:
            finish(jobs[index])

    @pytest.mark.parametrize("seed", range(4))
    def test_pictures_stand_in_the_order_of_the_rows_however_they_finish(self, submit, seed):
        deck = make_deck(many_rows(7))
        run = submit(deck)
        order = random.Random(seed).sample(range(7), 7)

        self.in_order(run, order)

        assert names_in(run.album) == [f"card {index}" for index in range(7)]
        places = AlbumImage.objects.filter(album=run.album).order_by("position")
        assert [place.position for place in places] == list(range(7))

    @pytest.mark.parametrize("seed", range(4))
    def test_in_an_album_that_people_use_meanwhile(self, submit, seed):
        chance = random.Random(seed)
        album = AlbumFactory(images=[ImageFactory(name="first"), ImageFactory(name="second")])
        run = submit(make_deck(many_rows(7)), album=album)
        for index in chance.sample(range(7), 7):
            self.in_order(run, [index])
            if chance.random() < 0.5:
                add_images_to_album(album, [ImageFactory(name="added")])

        names = names_in(album)
        assert names[:2] == ["first", "second"]
        assert [name for name in names if name.startswith("card")] == [f"card {index}" for index in range(7)]
        album.refresh_from_db()
        assert album.total_images == len(names)

    def test_in_an_album_that_becomes_part_of_another(self, submit):
        run = submit(make_deck(many_rows(4)))
        self.in_order(run, [3, 1])
        other = AlbumFactory(images=[ImageFactory(name="first")])
        merge_albums(other, [run.album])

        self.in_order(run, [2, 0])

        run.refresh_from_db()
        assert (run.album, names_in(other)) == (other, ["first", "card 0", "card 1", "card 2", "card 3"])

    def test_two_runs_into_one_album_stay_apart(self, submit):
        deck, album = make_deck(many_rows(3)), AlbumFactory()
        one, two = submit(deck, album=album), submit(deck, album=album)
        for run, index in [(one, 2), (two, 0), (one, 0), (two, 2), (one, 1), (two, 1)]:
            self.in_order(run, [index])

        for run in (one, two):
            jobs = [job.pk for job in jobs_of(run)]
            made = Image.objects.in_album(album).filter(source_id__in=jobs).order_by("position", "id")
            assert [image.name for image in made] == ["card 0", "card 1", "card 2"]

    def test_an_album_deleted_in_between_keeps_no_picture_from_being_made(self, submit):
        run = submit()
        delete_album(run.album)

        self.in_order(run, [1, 0, 2])

        run.refresh_from_db()
        assert (run.album, Image.objects.count()) == (None, 3)
        assert services.progress_of([run])[run.pk].status == JobStatus.COMPLETED


@pytest.mark.usefixtures("drawn")
class TestProgress:
    def progress(self, run):
        return services.progress_of([run])[run.pk]

    def test_goes_from_queued_over_running_to_completed(self, submit):
        run = submit()
        seen = [self.progress(run).status]
        for job in jobs_of(run):
            finish(job)
            seen.append(self.progress(run).status)

        assert seen == ["queued", "running", "running", "completed"]
        assert (self.progress(run).share, self.progress(run).eta_seconds) == (1.0, 0.0)

    def test_tells_what_failed_and_what_was_cancelled(self, submit):
        run = submit()
        first, second, third = jobs_of(run)
        finish(first)
        finish(second, status=JobStatus.FAILED)
        services.cancel_generation_job(third)

        progress = self.progress(run)
        assert progress.status == JobStatus.FAILED
        assert progress.counts == {
            "pending": 0, "queued": 0, "running": 0, "completed": 1, "failed": 1, "cancelled": 1,
        }  # fmt: skip
        assert progress.message == "Of 3 pictures: 1 failed, 1 cancelled."

    def test_a_page_of_runs_costs_two_queries(self, submit, django_assert_num_queries):
        runs = [submit() for _ in range(3)]

        with django_assert_num_queries(2):
            found = services.progress_of(runs)

        assert [found[run.pk].total for run in runs] == [3, 3, 3]

    def test_estimates_from_the_pictures_that_are_there(self, submit):
        run = submit()
        finish(jobs_of(run)[0])

        assert self.progress(run).eta_seconds is not None


@pytest.mark.usefixtures("drawn")
class TestRetryAndCancel:
    def lose(self, run) -> None:
        first, second, third = jobs_of(run)
        finish(first)
        finish(second, status=JobStatus.FAILED)
        services.cancel_generation_job(third)

    def test_retries_what_failed_and_what_was_cancelled_in_its_place(self, submit):
        run = submit(seed=5, priority=3)
        self.lose(run)
        lost = jobs_of(run)[1:]

        assert services.retry_set_run(run, owner=run.owner) == 2

        again = list(GenerationJob.objects.queued().filter(set_run=run).order_by("set_index"))
        assert [job.retry_of for job in again] == lost
        assert [(job.set_index, job.seed, job.prompt, job.priority) for job in again] == [
            (job.set_index, job.seed, job.prompt, 3) for job in lost
        ]
        assert services.progress_of([run])[run.pk].counts["queued"] == 2
        assert services.progress_of([run])[run.pk].total == 3
        for job in reversed(again):
            finish(job)
        assert services.progress_of([run])[run.pk].status == JobStatus.COMPLETED
        assert names_in(run.album) == ["Ace", "Two", "Three"]

    def test_a_second_retry_at_once_finds_nothing(self, submit):
        run = submit()
        self.lose(run)
        services.retry_set_run(run, owner=run.owner)

        with pytest.raises(services.NothingToRetry):
            services.retry_set_run(run, owner=run.owner)

    def test_a_single_picture_is_not_retried_twice(self, submit):
        run = submit()
        services.cancel_set_run(run)
        job = GenerationJob.objects.filter(set_run=run).order_by("set_index").first()
        services.retry_generation_job(job, owner=run.owner)

        with pytest.raises(services.NotRetryable):
            services.retry_generation_job(job, owner=run.owner)

    def test_what_fails_again_can_be_retried_again(self, submit):
        run = submit()
        self.lose(run)
        for _ in range(2):
            services.retry_set_run(run, owner=run.owner)
            for job in GenerationJob.objects.queued().filter(set_run=run):
                finish(job, status=JobStatus.FAILED)

        assert services.retry_set_run(run, owner=run.owner) == 2
        assert services.progress_of([run])[run.pk].total == 3

    def test_a_retry_for_which_the_queue_has_no_room_changes_nothing(self, submit, tmp_path, set_config):
        run = submit()
        self.lose(run)
        set_config("generation: {max_queued: 1}\nstorage: {minimum_free_bytes: 0}")

        with pytest.raises(services.QueueFull):
            services.retry_set_run(run, owner=run.owner)

        assert GenerationJob.objects.filter(set_run=run).count() == 3

    def test_a_retry_names_the_adapter_that_has_gone(self, submit):
        adapter = ReadyAdapterFactory(name="ink")
        run = submit(loras=[{"id": str(adapter.pk), "name": "ink", "weight": 1.0}])
        self.lose(run)
        adapter.delete()

        with pytest.raises(AdapterMissing, match="ink"):
            services.retry_set_run(run, owner=run.owner)

    def test_cancels_the_rest_and_keeps_what_is_there(self, submit):
        run = submit()
        finish(jobs_of(run)[0])

        assert services.cancel_set_run(run) == 2

        assert services.progress_of([run])[run.pk].status == JobStatus.CANCELLED
        assert names_in(run.album) == ["Ace"]
        with pytest.raises(services.AlreadyFinished):
            services.cancel_set_run(run)


@pytest.mark.usefixtures("tiny_model")
def test_the_real_engine_makes_a_set(submit):
    run = submit(base_model=BaseModel.objects.get(name="tiny"), seed=9)

    answer_doorbell(Cluster.GENERATION)

    assert services.progress_of([run])[run.pk].status == JobStatus.COMPLETED
    assert names_in(run.album) == ["Ace", "Two", "Three"]
    assert list(Image.objects.in_album(run.album).order_by("position").values_list("seed", flat=True)) == [
        9,
        10,
        11,
    ]
