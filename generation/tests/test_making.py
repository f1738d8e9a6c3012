"""Making pictures with everything a job can ask for, and what happens between one picture and the next."""

import json
import os
import shutil
import signal
import time
from datetime import timedelta

import PIL.Image
import pytest

from albums import consistency
from albums.models import Image, ImageLora
from albums.tests.factories import ImageFactory
from generation import facts, services, warm_engine
from generation.measures import measure
from generation.models import GenerationJob
from generation.services import making
from generation.tests.factories import GenerationJobFactory
from imagehub import storage
from imagehub.jobs import live, presence, runner
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import Audience, JobStatus, WorkerPresence
from imagehub.jobs.registry import Measured
from imagehub.jobs.tasks import answer_doorbell
from imagehub.roots import models_root
from training.models import Adapter, Architecture, BaseModel
from training.services import update_adapter, update_base_model

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _model(tiny_model):
    """All jobs here use it."""


def submit(**fields) -> GenerationJob:
    owner = GenerationJobFactory.build().owner
    owner.save()
    model = BaseModel.objects.get(name="tiny")
    job = GenerationJobFactory.build(**{"owner": owner, "base_model": model} | fields)
    return services.submit_generation(job)[0]


def run(**fields) -> GenerationJob:
    job = submit(**fields)
    answer_doorbell(Cluster.GENERATION)
    job.refresh_from_db()
    return job


def pixels_of(job) -> bytes:
    (image,) = Image.objects.made_by(job.pk)
    with PIL.Image.open(storage.path_of(image.storage_name)) as picture:
        return picture.tobytes()


@pytest.fixture(scope="session")
def adapter_files(tiny_sd15, tmp_path_factory):
    from diffusers import StableDiffusionPipeline

    from generation.tests import tiny_adapters

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd15)
    folder = tmp_path_factory.mktemp("adapters")
    return [
        tiny_adapters.write_kohya(
            folder / f"{number}.safetensors",
            tiny_adapters.make_changes(pipeline, parts=["unet", "text_encoder"], seed=number, strength=2.0),
        )
        for number in range(2)
    ]


@pytest.fixture
def adapters(adapter_files):
    rows = []
    for file in adapter_files:
        (models_root() / "loras").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, models_root() / "loras")
        rows.append(
            Adapter.objects.create(
                name=f"style {file.stem}",
                source=f"loras/{file.name}",
                sha256=file.stem * 64,
                size_bytes=file.stat().st_size,
                architecture=Architecture.SD1,
                layout=Adapter.Layout.KOHYA,
            )
        )
    return rows


def stack(adapters, *weights):
    return [
        {"id": str(adapter.pk), "name": adapter.name, "weight": weight}
        for adapter, weight in zip(adapters, weights, strict=False)
    ]


class TestAdapters:
    def test_act_on_the_picture_which_says_which_they_were(self, adapters):
        plain = run()
        job = run(loras=stack(adapters, 0.8, -0.5))

        image = Image.objects.made_by(job.pk).get()
        assert pixels_of(job) != pixels_of(plain)
        assert image.loras == job.loras
        assert set(ImageLora.objects.filter(image=image).values_list("lora_id", flat=True)) == {
            str(adapter.pk) for adapter in adapters
        }
        with PIL.Image.open(storage.path_of(image.storage_name)) as picture:
            assert 'LoRAs: "style 0: 0.8, style 1: -0.5"' in picture.text["parameters"]
            assert json.loads(picture.text["imagehub"])["loras"] == job.loras
            assert str(models_root()) not in str(picture.text)

    def test_of_weight_zero_are_absent(self, adapters):
        plain, job = run(), run(loras=stack(adapters, 0.0))

        assert pixels_of(job) == pixels_of(plain)
        assert Image.objects.made_by(job.pk).get().loras == []

    def test_that_are_gone_fail_the_job_by_name(self, adapters):
        job = submit(loras=stack(adapters, 1.0, 1.0))
        adapters[1].delete()  # as no service would

        answer_doorbell(Cluster.GENERATION)

        job.refresh_from_db()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "adapter_missing")
        assert "“style 1”" in job.error_detail

    def test_that_were_disabled_meanwhile_fail_the_job_by_name(self, adapters):
        job = submit(loras=stack(adapters, 1.0, 1.0))
        update_adapter(adapters[1], is_enabled=False)

        answer_doorbell(Cluster.GENERATION)

        job.refresh_from_db()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "adapter_disabled")
        assert job.error_detail == "The adapter “style 1” is disabled."

    def test_whose_file_is_gone_or_broken_fail_the_job_and_no_other(self, adapters):
        file = models_root() / adapters[0].source
        content = file.read_bytes()
        file.write_bytes(b"x" * len(content))
        broken = run(loras=stack(adapters, 1.0))
        file.unlink()
        gone = run(loras=stack(adapters, 1.0))

        assert (broken.error_code, gone.error_code) == ("adapter_incompatible", "adapter_missing")
        for job in (broken, gone):
            assert "“style 0”" in job.error_detail
            assert str(models_root()) not in job.error_detail
        assert run(loras=stack(adapters[1:], 1.0)).status == JobStatus.COMPLETED


class TestInitImage:
    @pytest.fixture
    def start(self):
        return Image.objects.made_by(run(seed=5).pk).get()

    def test_is_where_the_picture_starts(self, start):
        near, far = (run(init_image=start, strength=strength) for strength in (0.5, 1.0))

        assert near.status == far.status == JobStatus.COMPLETED
        assert pixels_of(near) != pixels_of(far) != pixels_of(run())

    def test_that_was_deleted_fails_the_job(self, start):
        job = submit(init_image=start, strength=0.5)
        GenerationJob.objects.filter(pk=job.pk).update(init_image=None)

        answer_doorbell(Cluster.GENERATION)

        job.refresh_from_db()
        assert (job.status, job.error_code) == (JobStatus.FAILED, "init_image_missing")

    def test_whose_file_is_gone_fails_the_job(self):
        image = ImageFactory()
        storage.path_of(image.storage_name).unlink()

        job = run(init_image=image, strength=0.5)

        assert job.status == JobStatus.FAILED
        assert job.error_code == "image_file_missing"


class TestOverlap:
    """What is stored is stored while the engine makes the next picture, and still each job answers for its own."""

    @pytest.fixture
    def order(self, monkeypatch):
        """Note what the worker does in which order."""
        found = []
        begin, save = warm_engine.WarmEngine.begin, making.save_image

        def noted_begin(engine, request, **rest):
            found.append("begin")
            return begin(engine, request, **rest)

        def noted_save(image, **rest):
            found.append("save")
            return save(image, **rest)

        monkeypatch.setattr(warm_engine.WarmEngine, "begin", noted_begin)
        monkeypatch.setattr(making, "save_image", noted_save)
        return found

    def test_the_pictures_of_a_job(self, order):
        assert run(n=3).status == JobStatus.COMPLETED

        assert order == ["begin", "begin", "save", "begin", "save", "save"]

    def test_jobs_that_follow_one_another(self, order):
        jobs = [submit(seed=seed) for seed in range(3)]

        answer_doorbell(Cluster.GENERATION)

        assert order == ["begin", "begin", "save", "begin", "save", "save"]
        for job in jobs:
            job.refresh_from_db()
            assert job.status == JobStatus.COMPLETED
            assert Image.objects.made_by(job.pk).get().seed == job.seed

    def test_what_waits_is_stored_before_a_picture_is_fetched_from_afar(self, bucket, order, monkeypatch):
        fetch = making.local_image

        def noted_fetch(image):
            order.append("fetch")
            return fetch(image)

        monkeypatch.setattr(making, "local_image", noted_fetch)
        start = Image.objects.made_by(run(seed=9).pk).get()
        order.clear()
        jobs = [submit(seed=1), submit(seed=2, init_image=start, strength=0.5)]

        answer_doorbell(Cluster.GENERATION)

        assert order == ["begin", "save", "fetch", "begin", "save"]
        assert [GenerationJob.objects.get(pk=job.pk).status for job in jobs] == [JobStatus.COMPLETED] * 2

    def test_a_job_that_cannot_be_stored_fails_alone(self, monkeypatch):
        real = making.adopt_image_file
        first, second = submit(seed=1), submit(seed=2)

        def adopt(image, path):
            if image.seed == 1:
                raise storage.StorageFull("The disk is full.")
            return real(image, path)

        monkeypatch.setattr(making, "adopt_image_file", adopt)

        answer_doorbell(Cluster.GENERATION)

        first.refresh_from_db()
        second.refresh_from_db()
        assert (first.status, first.error_code) == (JobStatus.FAILED, "disk_full")
        assert (second.status, Image.objects.get().source_id) == (JobStatus.COMPLETED, second.pk)

    def test_a_job_that_was_taken_away_meanwhile_writes_nothing(self, monkeypatch):
        first, second = submit(seed=1), submit(seed=2)
        begin = warm_engine.WarmEngine.begin

        def begin_and_take_away(engine, request, **rest):
            if request["seed"] == 2:
                GenerationJob.objects.filter(pk=first.pk).update(token="0" * 32)
            return begin(engine, request, **rest)

        monkeypatch.setattr(warm_engine.WarmEngine, "begin", begin_and_take_away)

        answer_doorbell(Cluster.GENERATION)

        first.refresh_from_db()
        assert first.status == JobStatus.RUNNING
        assert Image.objects.get().source_id == second.pk

    def test_a_job_that_fails_before_it_begins_leaves_the_one_before_whole(self, adapters):
        first = submit()
        second = submit(loras=stack(adapters, 1.0))
        Adapter.objects.all().delete()

        answer_doorbell(Cluster.GENERATION)

        first.refresh_from_db()
        second.refresh_from_db()
        assert (first.status, second.status) == (JobStatus.COMPLETED, JobStatus.FAILED)

    def test_a_job_cancelled_after_its_first_picture_keeps_it(self, monkeypatch):
        job = submit(n=3)
        begin = warm_engine.WarmEngine.begin
        seen = []

        def begin_and_cancel(engine, request, **rest):
            seen.append(request["seed"])
            if len(seen) == 2:
                services.cancel_generation_job(GenerationJob.objects.get(pk=job.pk))
            return begin(engine, request, **rest)

        monkeypatch.setattr(warm_engine.WarmEngine, "begin", begin_and_cancel)

        answer_doorbell(Cluster.GENERATION)

        job.refresh_from_db()
        assert job.status == JobStatus.CANCELLED
        assert Image.objects.made_by(job.pk).count() >= 1
        assert len(seen) == 2

    def test_an_engine_that_dies_loses_only_what_it_was_making(self, monkeypatch):
        first, second = submit(seed=1), submit(seed=2, steps=24, width=256, height=256)
        save = making.save_image

        def save_and_kill(image, **rest):
            if image.source_id == first.pk:
                os.kill(warm_engine._engine._child.pid, signal.SIGKILL)
            return save(image, **rest)

        monkeypatch.setattr(making, "save_image", save_and_kill)

        answer_doorbell(Cluster.GENERATION)

        first.refresh_from_db()
        second.refresh_from_db()
        assert (first.status, first.attempt) == (JobStatus.COMPLETED, 1)
        assert (second.status, second.attempt) == (JobStatus.COMPLETED, 2)

    def test_a_crash_between_the_file_and_its_row_leaves_nothing_after_the_sweep(self, monkeypatch):
        job = submit()
        monkeypatch.setattr(
            making, "save_image", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("crash"))
        )
        answer_doorbell(Cluster.GENERATION)
        job.refresh_from_db()
        (left,) = consistency.files_without_rows()

        assert (job.status, job.error_code, Image.objects.count()) == (JobStatus.FAILED, "internal_error", 0)
        an_age_ago = time.time() - 7 * 86400
        os.utime(storage.path_of(left.name), (an_age_ago, an_age_ago))
        assert consistency.remove_leftovers(consistency.files_without_rows()) == 1
        assert list(consistency.files_without_rows()) == []

    def test_leaves_no_staging_behind(self):
        submit(n=2)
        submit()
        answer_doorbell(Cluster.GENERATION)

        assert not any((storage.root() / "staging").iterdir())


def test_a_model_that_was_disabled_meanwhile_makes_nothing():
    job = submit()
    update_base_model(job.base_model, is_enabled=False)

    answer_doorbell(Cluster.GENERATION)

    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "model_disabled")
    assert not Image.objects.exists()


def test_a_job_tells_how_long_its_phases_took():
    job = run()
    timings = job.timings

    assert {"load", "adapters", "encode", "denoise", "decode", "save", "total"} == set(timings)
    assert timings["total"] >= timings["denoise"] > 0
    measured = measure(job)
    assert measured.seconds == {phase: seconds for phase, seconds in timings.items() if phase != "total"}
    assert measured.done == {"images": job.n, "steps": job.n * job.steps}


def test_a_job_that_ends_early_has_made_the_pictures_that_are_whole():
    cancelled = GenerationJobFactory.build(
        base_model=None, status=JobStatus.CANCELLED, n=4, steps=10, step=25, timings={"load": {"old": 1}}
    )

    assert measure(cancelled) == Measured({}, {"images": 2, "steps": 25})


def test_a_worker_tells_what_it_has(monkeypatch):
    cluster = presence.announce(Cluster.GENERATION)
    monkeypatch.setattr(presence, "_current", cluster.pk)
    monkeypatch.setattr(runner, "_facts_told_at", float("-inf"))
    BaseModel.objects.create(name="gone", kind=BaseModel.Kind.FOLDER, source="nowhere")
    BaseModel.objects.create(name="off", kind=BaseModel.Kind.FOLDER, source="tiny", is_enabled=False)
    (models_root() / "broken").mkdir()
    BaseModel.objects.create(name="broken", kind=BaseModel.Kind.FOLDER, source="broken")
    run()
    run()  # by now the engine has answered

    presence.publish(facts.worker_facts())

    told = WorkerPresence.objects.get(pk=cluster.pk).facts
    assert "tiny" in told["models"]
    assert "off" in told["models"]  # it is here, should somebody enable it
    assert not {"gone", "broken"}.intersection(told["models"])
    assert told["engine"]["device"] == "cpu"
    assert "tiny" in [model["name"] for model in told["engine"]["memory"]["models"]]
    assert told["engine"]["memory"]["loads"] >= 1
    assert told["engine"]["memory"]["served"]["prompt_hits"] >= 1
    assert str(models_root()) not in json.dumps(told)


@pytest.mark.once
class TestPreviews:
    def test_are_there_while_somebody_watches(self, monkeypatch):
        monkeypatch.setattr(live, "PREVIEW_SECONDS", 0)
        monkeypatch.setattr(live, "WATCHED", timedelta(minutes=10))  # however slow this machine is
        job = submit(steps=20, width=256, height=256)
        live.watch([job.pk])

        answer_doorbell(Cluster.GENERATION)

        row = Audience.objects.get(job=job.pk)
        assert bytes(row.preview).startswith(b"\xff\xd8")
        assert 0 < row.step < 20

    def test_are_not_made_for_nobody(self, monkeypatch):
        heard = []
        monkeypatch.setattr(live, "publish", lambda *event: heard.append(event))

        run(steps=20, width=256, height=256)

        assert heard == []
