"""Checkpoints that become adapters, and those that are kept."""

import logging
import sys
import uuid
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.errors import Conflict, ImageHubError
from imagehub.jobs.child import (
    Child,
    ChildDied,
    ChildLimits,
    ChildTimedOut,
    environment_without_secrets,
    watch,
)
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import send
from imagehub.jobs.run_log import RunLog
from imagehub.redaction import redact_paths
from training.models import Adapter, Checkpoint
from training.services.adapters import delete_adapter, import_adapter
from training.services.datasets import require_pictures
from training.services.run_folders import folder_of

logger = logging.getLogger(__name__)

EXPORT_LOG = "export.log"

TIME_FOR_TAKING_IN = timedelta(minutes=10)
"""So long after an export may have ended at the latest, whoever made it has died over it."""


class CheckpointGone(Conflict):
    code = "checkpoint_gone"
    title = "The files of the checkpoint have been deleted"


class NotExported(ImageHubError):
    """The program made no file of a checkpoint; the text says why, without a path."""

    code = "not_exported"
    title = "No adapter was made of the checkpoint"


def promote_checkpoint(checkpoint: Checkpoint, *, user: User, name: str = "") -> Checkpoint:
    """Ask for an adapter of a checkpoint; the cluster ``default`` makes it in a moment. Its files stay meanwhile.

    Whoever asks again gets the adapter that is there, or has one that failed or was deleted made again.

    Args:
        checkpoint: it.
        user: who asks, and whose the adapter will be.
        name: what to call it. Empty: after the run and the step.

    Raises:
        CheckpointGone: its files have been deleted.
        PicturesGone: pictures that the run has learned from are in the trash, or were deleted.
    """
    with transaction.atomic():
        current = _lock(checkpoint)
        if current.adapter_id is not None or current.promotion == Checkpoint.Promotion.WORKING:
            audit.record("checkpoint.promote", current)
            return current
        if current.removed_at is not None:
            raise CheckpointGone(f"The files of the checkpoint of step {current.step} have been deleted.")
        require_pictures(current.run.dataset)
        Checkpoint.objects.filter(pk=current.pk).update(
            promotion=Checkpoint.Promotion.WAITING,
            promoted_at=Now(),
            promoted_by=user,
            promoted_as=name,
            promotion_problem="",
        )
        current.refresh_from_db()
        audit.record("checkpoint.promote", current, after={"step": current.step, "name": name})
        send(Cluster.DEFAULT, "training.tasks.promote_waiting")
    return current


def pin_checkpoint(checkpoint: Checkpoint, *, is_pinned: bool) -> Checkpoint:
    """Keep a checkpoint whatever else is deleted, or let it go.

    Raises:
        CheckpointGone: its files have been deleted.
    """
    with transaction.atomic():
        current = _lock(checkpoint)
        if is_pinned and current.removed_at is not None:
            raise CheckpointGone(f"The files of the checkpoint of step {current.step} have been deleted.")
        before = {"is_pinned": current.is_pinned}
        Checkpoint.objects.filter(pk=current.pk).update(is_pinned=is_pinned)
        current.refresh_from_db()
        audit.record("checkpoint.pin", current, before=before, after={"is_pinned": is_pinned})
    return current


def promote_waiting() -> int:
    """Make the adapters that were asked for; return how many were made. Harmless when repeated, or twice at once."""
    made = 0
    while (checkpoint := _claim()) is not None:
        made += _promote(checkpoint)
    return made


def end_promotions(run_ids: Collection[Any], reason: str) -> int:
    """Let no adapter be made of checkpoints of some runs that wait for it; return how many did.

    One that is in the making then is deleted when it is there.
    """
    with transaction.atomic():
        awaited = Checkpoint.objects.filter(run__in=run_ids).awaited().locked_in_order()
        return awaited.update(promotion=Checkpoint.Promotion.FAILED, promotion_problem=reason)


def _claim() -> Checkpoint | None:
    """Take the next promotion that waits, or whose worker has been at it for longer than that may take: it is gone."""
    now = timezone.now()
    patience = timedelta(seconds=get_config().training.phase_seconds.export) + TIME_FOR_TAKING_IN
    is_lost = Q(promotion=Checkpoint.Promotion.WORKING, promotion_began_at__lt=now - patience)
    free = Checkpoint.objects.filter(Q(promotion=Checkpoint.Promotion.WAITING) | is_lost)
    for pk in list(free.order_by("promoted_at", "pk").values_list("pk", flat=True)):
        # Of two who want it, one finds it taken: the condition is looked at again when the row is written.
        if free.filter(pk=pk).update(promotion=Checkpoint.Promotion.WORKING, promotion_began_at=now):
            return Checkpoint.objects.select_related("run__owner", "run__dataset", "promoted_by").get(pk=pk)
    return None


def _promote(checkpoint: Checkpoint) -> bool:
    """Make the adapter of a promotion that was claimed; tell whether it was made, and is wanted still."""
    ours = Checkpoint.objects.filter(
        pk=checkpoint.pk,
        promotion=Checkpoint.Promotion.WORKING,
        promotion_began_at=checkpoint.promotion_began_at,
    )
    try:
        adapter, is_new = _make_adapter(checkpoint)
    except (ImageHubError, OSError) as error:
        logger.warning(
            "No adapter was made of a checkpoint (%s)", getattr(error, "code", type(error).__name__)
        )
        problem = str(error) if isinstance(error, ImageHubError) else "Its files cannot be read or written."
        ours.update(promotion=Checkpoint.Promotion.FAILED, promotion_problem=problem[:500])
        return False
    if ours.update(promotion=Checkpoint.Promotion.DONE, adapter=adapter):
        return True
    wanted = (Checkpoint.Promotion.WORKING, Checkpoint.Promotion.DONE)
    if is_new and not Checkpoint.objects.filter(pk=checkpoint.pk, promotion__in=wanted).exists():
        # Somebody took the run down meanwhile. Should a job use it already, it cannot be deleted, and makes nothing more.
        Adapter.objects.filter(pk=adapter.pk).update(is_enabled=False)
        with suppress(ImageHubError):
            delete_adapter(adapter)
    return False


def _lock(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint.objects.select_for_update(no_key=True, of=("self",)).get(pk=checkpoint.pk)


def _make_adapter(checkpoint: Checkpoint) -> tuple[Adapter, bool]:
    """Return the adapter of a checkpoint, and whether it is new."""
    run, step = checkpoint.run, checkpoint.step
    require_pictures(run.dataset)
    earlier = Adapter.objects.filter(training_run=run, training_step=step).first()
    if earlier is not None:
        return earlier, False
    folder = folder_of(run)
    name = f"promoted-{step:06d}"
    file = folder.export / f"{name}-{uuid.uuid4().hex}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    _export(checkpoint, [str(folder.root), "--export", str(step), "--output", str(file)])
    try:
        return import_adapter(
            file,
            name=checkpoint.promoted_as or f"{run.name}, step {step}",
            file_name=f"{name}.safetensors",
            owner=checkpoint.promoted_by or run.owner,
            description=run.description,
            trigger_words=[run.trigger_word] if run.trigger_word else None,
            training_run=run,
            training_step=step,
        )
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def command(arguments: list[str]) -> list[str]:
    """Return the program that exports, with its arguments."""
    return [sys.executable, "-m", "training.trainer", *arguments]


def _export(checkpoint: Checkpoint, arguments: list[str]) -> None:
    config = get_config().training
    run = checkpoint.run
    log = RunLog(
        folder_of(run).root / EXPORT_LOG,
        limit_bytes=config.log_limit_bytes,
        sensitive=run.sensitive_texts(),
    )
    said: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        if event.get("event") == "error" and isinstance(event.get("detail"), str):
            said.append(redact_paths(event["detail"]))

    child = Child(
        command(arguments),
        cwd=settings.BASE_DIR,
        log=log,
        env=environment_without_secrets() | {"OMP_NUM_THREADS": str(config.threads)},
    )
    child.start()
    seconds = float(config.phase_seconds.export)
    limits = ChildLimits(wall_seconds=seconds, idle_seconds=seconds, grace_seconds=5)
    try:
        watch(child, limits=limits, on_event=on_event, should_stop=lambda: False)
    except (ChildTimedOut, ChildDied) as error:
        raise NotExported(said[-1] if said else str(error)) from error
