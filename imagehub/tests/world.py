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

from albums.models import Image, ImageQuerySet, Visibility
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.tests.factories import GenerationJobFactory
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence

PRIVATE_PROMPT = "a violet zeppelin over the silent harbour"
PUBLIC_PROMPT = "a green kettle on a checkered cloth"
OWNER = "owner@private.example"
HOST = "gpu-box-17.corp.internal"
LORA_FILE = "/srv/adapters/zeppelin-rank16.safetensors"
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
    open_album = AlbumFactory(public=True, owner=owner, cover=private, images=[private, public])
    closed_album = AlbumFactory(owner=owner, name=PRIVATE_PROMPT, description=PRIVATE_PROMPT, images=[public])

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
    token = ApiTokenFactory(user=staff, name="spare")

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
        "job": {"waiting": Target(waiting.pk, staff_only)},
        "token": {"of staff": Target(token.pk, lambda user: user == staff)},
    }
    for kinds in targets.values():
        kinds["unknown"] = unknown
    return World(owner=owner, staff=staff, superuser=superuser, visitor=visitor, targets=targets)


def plant_bug(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let every list of images fail in a way that nobody expects."""

    def broken(*_: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(ImageQuerySet, "visible_to", broken)
