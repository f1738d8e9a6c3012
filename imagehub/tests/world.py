"""A system in which something of everything is there, and much of it is private. For tests that walk all routes.

The one module of the platform's tests that knows the apps.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from albums.models import (
    Album,
    Image,
    ImageQuerySet,
    LabelEdit,
    LabelKind,
    LabelOrigin,
    LabelRevision,
    Visibility,
)
from albums.tests.factories import AlbumFactory, ImageFactory, LabelFactory, picture
from generation.models import SetRun
from generation.tests.factories import GenerationJobFactory
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence
from imagehub.operations.models import Purge
from scraping.models import HostRecord, ScrapeJob
from scraping.services.folders import log_of
from scraping.services.plans import Plan, config_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory
from training.models import BaseModel, Checkpoint, LabelingJob, MetricPoint, Sample, TrainingRun
from training.services.run_folders import folder_of
from training.tests.factories import AdapterFactory, TrainingRunFactory, make_dataset

PRIVATE_PROMPT = "a violet zeppelin over the silent harbour"
PUBLIC_PROMPT = "a green kettle on a checkered cloth"
OWNER = "owner@private.example"
HOST = "gpu-box-17.corp.internal"
LORA_NAME = "zeppelin-rank16.safetensors"
LORA_FILE = f"/srv/adapters/{LORA_NAME}"
TRACE = 'Traceback (most recent call last):\n  File "/opt/imagehub/generation/engine/rendering.py", line 7'


@dataclass(frozen=True)
class Target:
    """The id of a row, there or not, and who is told of it."""

    pk: Any
    is_told: Callable[[User | None], bool]


@dataclass(frozen=True)
class World:
    owner: User
    staff: User
    superuser: User
    visitor: User
    targets: dict[str, dict[str, Target]] = field(default_factory=dict)
    """What a route may be asked about, by the kind of row: one of each sort."""


def build() -> World:
    owner = UserFactory(username=OWNER, staff=True)
    staff, visitor = UserFactory(staff=True), UserFactory()
    superuser = UserFactory(is_staff=True, is_superuser=True)

    loras = [{"id": "1", "name": "zeppelin", "weight": 1.0, "path": LORA_FILE, "file": LORA_FILE}]
    common: dict[str, Any] = {"owner": owner, "loras": loras}
    public = ImageFactory(prompt=PUBLIC_PROMPT, visibility=Visibility.PUBLIC, **common)
    private = ImageFactory(
        prompt=PRIVATE_PROMPT, negative_prompt=PRIVATE_PROMPT, name=PRIVATE_PROMPT, **common
    )
    # A path that names an image and its label is filled with one id.
    LabelFactory(pk=public.pk, image=public, text=PUBLIC_PROMPT, created_by=owner)
    LabelFactory(pk=private.pk, image=private, text=PRIVATE_PROMPT, created_by=owner)
    LabelRevision.objects.create(
        image=public,
        label_id=public.pk,
        change=LabelRevision.Change.REPLACED,
        kind=LabelKind.CAPTION,
        text=PRIVATE_PROMPT,
        origin=LabelOrigin.HUMAN,
        written_at=timezone.now(),
        changed_by=owner,
    )
    edit = LabelEdit.objects.create(
        owner=owner, action=LabelEdit.Action.PREFIX, text=PRIVATE_PROMPT, images=1, changed=0
    )
    open_album = AlbumFactory(public=True, owner=owner, cover=private, images=[private, public])
    closed_album = AlbumFactory(owner=owner, name=PRIVATE_PROMPT, description=PRIVATE_PROMPT, images=[public])
    closed_album.is_set_template, closed_album.prompt_template = True, "{sight}"
    closed_album.base_prompt = closed_album.example_theme = PRIVATE_PROMPT
    closed_album.set_rows = [{"sight": PRIVATE_PROMPT}]
    closed_album.save()

    work: dict[str, Any] = {
        "owner": owner,
        "prompt": PRIVATE_PROMPT,
        "negative_prompt": PRIVATE_PROMPT,
        "loras": loras,
    }
    now = timezone.now()
    waiting = GenerationJobFactory(status=JobStatus.QUEUED, queued_at=now, album=open_album, **work)
    GenerationJobFactory(
        status=JobStatus.FAILED,
        started_at=now,
        finished_at=now,
        worker=f"{HOST}:4711",
        error_code="engine_error",
        error_detail=f"The engine failed at {LORA_FILE}.",
        error_trace=TRACE,
        **work,
    )
    Image.objects.filter(pk=public.pk).update(source_kind=Image.SourceKind.GENERATION, source_id=waiting.pk)
    for cluster in Cluster:
        WorkerPresence.objects.create(cluster=cluster.value, host=HOST, pid=4711)
    run = SetRun.objects.create(
        owner=owner, template=closed_album, album=open_album, theme=PRIVATE_PROMPT, total=1
    )
    GenerationJobFactory(
        status=JobStatus.QUEUED, queued_at=now, set_run=run, set_index=0, name=PRIVATE_PROMPT, **work
    )
    labeling = LabelingJob.objects.create(
        owner=owner,
        task=LabelingJob.Task.CAPTION,
        model="starter",
        total=1,
        status=JobStatus.QUEUED,
        queued_at=now,
    )
    token = ApiTokenFactory(user=staff, name="spare")
    shown = AdapterFactory(
        owner=owner, preview=public, source=f"loras/{LORA_NAME}", base_model_name=LORA_NAME
    )
    disabled = AdapterFactory(
        owner=owner, is_enabled=False, preview=private, name=PRIVATE_PROMPT, description=PRIVATE_PROMPT
    )
    models = [
        BaseModel.objects.create(
            name=f"{name}-model",
            kind=BaseModel.Kind.FOLDER,
            source=LORA_NAME,
            problem=LORA_FILE,
            is_enabled=is_enabled,
        )
        for name, is_enabled in (("open", True), ("zeppelin-rank16", False))
    ]

    trained = _trained(owner, models[1], private)
    crawls = _crawls(owner, closed_album, private)

    def everybody(user: User | None) -> bool:
        return True

    def nobody(user: User | None) -> bool:
        return False

    def staff_only(user: User | None) -> bool:
        return bool(user and user.is_staff)

    unknown = Target(uuid.uuid4(), nobody)
    targets = {
        "image": {"public": Target(public.pk, everybody), "private": Target(private.pk, staff_only)},
        "album": {"public": Target(open_album.pk, everybody), "private": Target(closed_album.pk, staff_only)},
        "label": {"public": Target(public.pk, everybody), "private": Target(private.pk, staff_only)},
        "labeling_job": {"waiting": Target(labeling.pk, staff_only)},
        "label_edit": {"private": Target(edit.pk, staff_only)},
        "set_run": {"waiting": Target(run.pk, staff_only)},
        "job": {"waiting": Target(waiting.pk, staff_only)},
        "adapter": {"enabled": Target(shown.pk, everybody), "disabled": Target(disabled.pk, staff_only)},
        "model": {"enabled": Target(models[0].pk, everybody), "disabled": Target(models[1].pk, staff_only)},
        "training_run": {"failed": Target(trained.pk, everybody)},
        "scrape_job": {crawl.status: Target(crawl.pk, everybody) for crawl in crawls},
        "trained_adapter": {
            "of a run": Target(
                AdapterFactory(owner=owner, training_run=trained, training_step=4, on_disk=True).pk,
                staff_only,
            )
        },
        "training_purge": {"waiting": Target(_purge("training", owner).pk, staff_only)},
        "jobs_purge": {"waiting": Target(_purge("generation", owner).pk, staff_only)},
        "trash_purge": {"waiting": Target(_purge("trash", owner).pk, staff_only)},
        "scraping_purge": {
            "waiting": Target(_purge("scraping", owner).pk, staff_only),
            "of trainings": Target(_purge("training", owner).pk, nobody),
        },
        "token": {"of staff": Target(token.pk, lambda user: user == staff)},
    }
    for kinds in targets.values():
        kinds["unknown"] = unknown
    return World(owner=owner, staff=staff, superuser=superuser, visitor=visitor, targets=targets)


def _trained(owner: User, base_model: BaseModel, image: Image) -> TrainingRun:
    """A run that failed, everything of which is private but its name."""
    now = timezone.now()
    dataset = make_dataset(owner, images=[image])
    dataset.images.update(caption=PRIVATE_PROMPT)
    dataset.albums = [{"id": "1", "name": PRIVATE_PROMPT}]
    dataset.save()
    run = TrainingRunFactory(
        name="stripes",
        owner=owner,
        base_model=base_model,
        dataset=dataset,
        trigger_word=PRIVATE_PROMPT,
        recipe={"sample_prompts": (PRIVATE_PROMPT,)},
        status=JobStatus.FAILED,
        attempt=1,
        started_at=now,
        finished_at=now,
        worker=f"{HOST}:4711",
        message=PRIVATE_PROMPT,
        error_code="training_bug",
        error_detail=f"The training failed at {LORA_FILE}.",
        error_trace=TRACE,
        training_loss=0.25,
        facts={"device": HOST},
    )
    # A path that names a run and something of it is filled with one id.
    Checkpoint.objects.create(pk=run.pk, run=run, step=4, sha256="0" * 64, size_bytes=1)
    MetricPoint.objects.create(run=run, kind=MetricPoint.Kind.TRAIN, step=4, loss=0.25)
    folder = folder_of(run)
    folder.samples.mkdir(parents=True)
    (folder.samples / "step-000004-0.png").write_bytes(picture())
    folder.log.write_text(f"Loading {LORA_FILE} on {HOST}\n")
    Sample.objects.create(
        pk=run.pk, run=run, step=4, index=0, prompt=PRIVATE_PROMPT, seed=1,
        file_name="samples/step-000004-0.png", width=8, height=8,
    )  # fmt: skip
    return run


def _crawls(owner: User, album: Album, image: Image) -> list[ScrapeJob]:
    """A crawl that failed and one that waits. Of their sites and pictures nothing is public but the hosts."""
    now, secret_url = timezone.now(), f"https://gallery.example/?key={HOST}"
    failed = ScrapeJobFactory(
        name="kettles",
        owner=owner,
        host="gallery.example",
        config=config_of(Plan(start_urls=[secret_url], max_pages=10, max_images=10, min_side=64)),
        album=album,
        album_name=PRIVATE_PROMPT,
        status=JobStatus.FAILED,
        attempt=1,
        started_at=now,
        finished_at=now,
        worker=f"{HOST}:4711",
        message=PRIVATE_PROMPT,
        error_code="crawler_error",
        error_detail=f"The crawler failed at {LORA_FILE}.",
        error_trace=TRACE,
    )
    ScrapedImageFactory(
        job=failed,
        image=image,
        url=secret_url,
        captions=[{"text": PRIVATE_PROMPT, "origin": "alt"}],
    )
    ScrapedPageFactory(job=failed, url=secret_url)
    HostRecord.objects.create(host="gallery.example", state={"requests": 2})
    log = log_of(failed)
    log.parent.mkdir(parents=True)
    log.write_text(f"--- job {failed.pk} of request -\nCould not reach {HOST}\n")
    waiting = ScrapeJobFactory(
        name="pots", owner=owner, host="pots.example", status=JobStatus.QUEUED, queued_at=now, retry_of=failed
    )
    return [failed, waiting]


def _purge(kind: str, owner: User) -> Purge:
    return Purge.objects.create(kind=kind, origin=Purge.Origin.PERSON, requested_by=owner, older_than_days=30)


def plant_bug(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let every list of images fail in a way that nobody expects."""

    def broken(*_: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(ImageQuerySet, "visible_to", broken)
