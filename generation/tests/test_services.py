"""Submitting and cancelling jobs, and making their pictures with the real engine."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from uuid import uuid4

import PIL.Image
import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from albums.models import Album, Image
from albums.tests.factories import AlbumFactory, ImageFactory
from generation import services, warm_engine
from generation.models import MAX_SEED, GenerationJob
from generation.services import making
from generation.tests.factories import GenerationJobFactory, ReadyAdapterFactory
from imagehub import storage
from imagehub.jobs import runner, stopping
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.queue import is_ringing
from imagehub.jobs.tasks import answer_doorbell
from training.models import Adapter, BaseModel
from training.services import AdapterMissing

pytestmark = pytest.mark.django_db


def unsaved(**fields) -> GenerationJob:
    owner = GenerationJobFactory.build().owner
    owner.save()
    return GenerationJobFactory.build(owner=owner, **fields)


def submit(**fields) -> GenerationJob:
    return services.submit_generation(unsaved(**fields))[0]


class TestSubmit:
    def test_queues_the_job_and_rings_once_the_transaction_commits(self, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True):
            job = submit()
            assert not is_ringing(Cluster.GENERATION)

        assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
        assert is_ringing(Cluster.GENERATION)

    def test_the_same_key_and_body_answer_the_same_job(self):
        first = unsaved(idempotency_key="k", body_digest="d")
        again = GenerationJobFactory.build(owner=first.owner, idempotency_key="k", body_digest="d")

        job, is_new = services.submit_generation(first)
        same, is_new_again = services.submit_generation(again)

        assert (is_new, is_new_again, same.pk) == (True, False, job.pk)

    def test_the_same_key_with_another_body_is_a_conflict(self):
        first = unsaved(idempotency_key="k", body_digest="d")
        services.submit_generation(first)

        with pytest.raises(services.KeyUsedDifferently):
            services.submit_generation(
                GenerationJobFactory.build(owner=first.owner, idempotency_key="k", body_digest="other")
            )

    def test_the_same_key_of_somebody_else_is_another_job(self):
        assert submit(idempotency_key="k", body_digest="d") != submit(idempotency_key="k", body_digest="d")

    def test_an_adapter_that_went_while_it_was_asked_for_is_named(self):
        job = unsaved(loras=[{"id": str(uuid4()), "name": "ink", "weight": 1.0}])

        with pytest.raises(AdapterMissing, match="“ink”"):
            services.submit_generation(job)

        assert not GenerationJob.objects.exists()

    def test_holds_the_image_before_the_album_and_the_adapters_last(self):
        adapter = ReadyAdapterFactory()
        job = unsaved(
            init_image=ImageFactory(),
            strength=0.5,
            album=AlbumFactory(),
            loras=[{"id": str(adapter.pk), "name": adapter.name, "weight": 1.0}],
        )

        with CaptureQueriesContext(connection) as queries:
            services.submit_generation(job)

        # As those do who put an image into the trash, delete an album, or an adapter: else two would wait for each other.
        tables = [f'FROM "{model._meta.db_table}"' for model in (Image, Album, Adapter)]
        first = [next(i for i, query in enumerate(queries) if table in query["sql"]) for table in tables]
        assert first == sorted(first)
        if connection.features.has_select_for_update:
            assert all("FOR NO KEY UPDATE" in queries[place]["sql"] for place in first)

    def test_refuses_when_the_queue_is_full(self, set_config):
        set_config("generation: {max_queued: 1}\nstorage: {minimum_free_bytes: 0}")
        submit()

        with pytest.raises(services.QueueFull):
            submit()

    def test_refuses_a_seed_out_of_range(self):
        with pytest.raises(ValidationError, match="seed"):
            submit(seed=MAX_SEED + 1)


class TestCancel:
    def test_ends_a_queued_job_at_once(self):
        assert services.cancel_generation_job(submit()).status == JobStatus.CANCELLED

    def test_refuses_a_finished_one(self):
        job = submit()
        services.cancel_generation_job(job)

        with pytest.raises(services.AlreadyFinished):
            services.cancel_generation_job(job)


@pytest.mark.usefixtures("tiny_model")
class TestGenerate:
    def run(self, **fields) -> GenerationJob:
        job = submit(base_model=BaseModel.objects.get(name="tiny"), **fields)
        answer_doorbell(Cluster.GENERATION)
        job.refresh_from_db()
        return job

    def test_a_job_ends_with_its_pictures_in_its_album(self):
        album = AlbumFactory()

        job = self.run(n=2, seed=MAX_SEED, album=album, negative_prompt="blurred")

        assert (job.status, job.error_code, job.progress) == (JobStatus.COMPLETED, "", 100)
        images = list(Image.objects.in_album(album).order_by("position"))
        assert [image.seed for image in images] == [MAX_SEED, 0]
        assert [image.source_index for image in images] == [0, 1]
        for image in images:
            assert storage.path_of(image.storage_name).stat().st_size == image.size_bytes
            assert (image.width, image.height, image.format) == (64, 64, "png")
            assert (image.prompt, image.owner, image.base_model) == (job.prompt, job.owner, "tiny")
        assert not any((storage.root() / "staging").iterdir())

    def test_a_job_whose_album_is_gone_makes_its_pictures_all_the_same(self, monkeypatch):
        album = AlbumFactory()
        job = submit(base_model=BaseModel.objects.get(name="tiny"), album=album)
        real = making.adopt_image_file

        def adopt(*arguments):
            album.delete()
            return real(*arguments)

        monkeypatch.setattr(making, "adopt_image_file", adopt)

        answer_doorbell(Cluster.GENERATION)

        job.refresh_from_db()
        assert (job.status, job.album, Image.objects.count()) == (JobStatus.COMPLETED, None, 1)

    def test_the_file_tells_how_it_was_made(self):
        job = self.run()

        with PIL.Image.open(storage.path_of(Image.objects.get().storage_name)) as picture:
            text = picture.text
        assert text["parameters"].startswith(
            f"{job.prompt}\nNegative prompt: {job.negative_prompt}\nSteps: 2, "
        )
        assert "Seed: 1, Size: 64x64, Model: tiny" in text["parameters"]
        own = json.loads(text["imagehub"])
        assert (own["prompt"], own["seed"], own["steps"]) == (job.prompt, 1, 2)

    def test_the_same_job_gives_the_same_pixels(self):
        self.run(seed=7)
        self.run(seed=8)
        self.run(seed=7)

        first, other, again = Image.objects.order_by("created_at").values_list("sha256", flat=True)
        assert first == again != other

    def test_the_engine_stays_warm_between_jobs(self):
        self.run()
        first = warm_engine._engine

        self.run()

        assert warm_engine._engine is first
        assert first.is_alive

    @pytest.mark.once
    def test_the_engine_is_not_told_the_secrets(self, monkeypatch):
        warm_engine.stop_engine()
        monkeypatch.setenv("IMAGEHUB_SECRET_KEY", "canary-of-the-key")
        monkeypatch.setenv("DATABASE_URL", "postgres://canary-of-the-database")

        self.run()

        environment = Path(f"/proc/{warm_engine._engine._child.pid}/environ").read_text()
        assert "PATH=" in environment
        assert "canary" not in environment

    def test_a_missing_model_fails_the_job_and_the_next_one_runs(self):
        gone = BaseModel.objects.create(name="gone", kind=BaseModel.Kind.FOLDER, source="nowhere")
        lost = submit(base_model=gone)
        outside = BaseModel.objects.create(name="outside", kind=BaseModel.Kind.FOLDER, source="../..")
        escape = submit(base_model=outside)

        good = self.run()

        lost.refresh_from_db()
        escape.refresh_from_db()
        assert (lost.status, lost.error_code) == (JobStatus.FAILED, "model_missing")
        assert escape.error_code == "model_missing"
        assert "/" not in lost.error_detail
        assert good.status == JobStatus.COMPLETED

    def test_a_full_disk_fails_the_job_and_keeps_the_pictures_before_it(self, set_config, monkeypatch):
        calls = []
        real = storage.require_space

        def fill_up(size_bytes=0):
            calls.append(size_bytes)
            if len(calls) > 1:
                raise storage.StorageFull("The disk is full.")
            real(size_bytes)

        monkeypatch.setattr(storage.disk, "require_space", fill_up)

        job = self.run(n=3)

        assert (job.status, job.error_code) == (JobStatus.FAILED, "disk_full")
        assert Image.objects.made_by(job.pk).count() == 1

    def test_a_second_attempt_makes_only_what_is_missing(self):
        job = self.run(n=3)
        kept = Image.objects.get(source_index=1)
        Image.objects.exclude(pk=kept.pk).delete()
        GenerationJob.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED, finished_at=None)

        answer_doorbell(Cluster.GENERATION)

        made = Image.objects.made_by(job.pk).order_by("source_index")
        assert list(made.values_list("source_index", flat=True)) == [0, 1, 2]
        assert made[1].pk == kept.pk

    @pytest.mark.once
    def test_an_engine_killed_between_jobs_is_replaced(self):
        self.run()
        os.kill(warm_engine._engine._child.pid, signal.SIGKILL)

        assert self.run().status == JobStatus.COMPLETED


@pytest.mark.django_db(transaction=True)
class TestInterruption:
    """What happens to a job while it runs; a second thread plays the user, or the reaper."""

    @pytest.fixture(autouse=True)
    def _model(self, tiny_model):
        self.model = tiny_model

    def meanwhile(self, act) -> None:
        """Call ``act`` with the running job as soon as its first step is reported."""

        def wait() -> None:
            try:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    job = GenerationJob.objects.filter(status=JobStatus.RUNNING, message="Denoising").first()
                    if job:
                        act(job)
                        return
                    time.sleep(0.05)
            finally:
                connection.close()

        self.thread = threading.Thread(target=wait)
        self.thread.start()

    def finish(self) -> None:
        answer_doorbell(Cluster.GENERATION)
        self.thread.join()

    def test_cancelling_stops_the_denoising_and_keeps_the_engine(self):
        job = submit(base_model=self.model, steps=100, width=256, height=256)
        self.meanwhile(services.cancel_generation_job)

        self.finish()

        job.refresh_from_db()
        assert job.status == JobStatus.CANCELLED
        assert not Image.objects.exists()
        assert warm_engine._engine.is_alive

    def test_an_engine_killed_in_the_middle_costs_an_attempt_and_no_picture(self):
        job = submit(base_model=self.model, steps=24, width=256, height=256)  # for seconds, and twice
        self.meanwhile(lambda _: os.kill(warm_engine._engine._child.pid, signal.SIGKILL))

        self.finish()

        job.refresh_from_db()
        assert (job.status, Image.objects.count()) == (JobStatus.COMPLETED, 1)
        assert job.attempt == 2

    @pytest.mark.once
    def test_a_hung_engine_is_killed_and_replaced(self, set_config):
        submit(base_model=self.model)
        answer_doorbell(Cluster.GENERATION)  # now it is warm
        hung = warm_engine._engine
        set_config("engine: {idle_seconds: 2, grace_seconds: 1}\nstorage: {minimum_free_bytes: 0}")
        job = submit(base_model=self.model, steps=100, width=256, height=256)
        self.meanwhile(lambda _: os.kill(hung._child.pid, signal.SIGSTOP))

        self.finish()

        job.refresh_from_db()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "engine_timeout")
        set_config("storage: {minimum_free_bytes: 0}")
        after = submit(base_model=self.model)
        answer_doorbell(Cluster.GENERATION)
        after.refresh_from_db()
        assert after.status == JobStatus.COMPLETED
        assert warm_engine._engine is not hung

    def test_an_engine_that_does_not_start_costs_no_job(self, monkeypatch):
        warm_engine.stop_engine()
        monkeypatch.setattr(warm_engine, "_launch", lambda _: ["--no-such-option"])
        monkeypatch.setattr(runner, "_rest", stopping.request_stop)
        job = submit(base_model=self.model)

        answer_doorbell(Cluster.GENERATION)

        job.refresh_from_db()
        assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
        assert "does not start" in job.message
        warm_engine.stop_engine()

    def test_a_worker_that_was_overtaken_leaves_its_successors_files_alone(self):
        job = submit(base_model=self.model, steps=100, width=256, height=256)
        files = []

        def overtake(running):
            other = storage.staging_dir(f"generation-{running.pk}-{uuid4()}") / "0.png"
            other.write_bytes(b"theirs")
            files.append(other)
            GenerationJob.objects.filter(pk=running.pk).update(token=uuid4())

        self.meanwhile(overtake)

        self.finish()

        job.refresh_from_db()
        assert (job.status, Image.objects.count()) == (JobStatus.RUNNING, 0)
        assert files[0].read_bytes() == b"theirs"
