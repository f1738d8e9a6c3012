"""Clearing out the files of runs that ended some time ago."""

import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from imagehub import roots
from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.errors import Invalid
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.queue import send
from training.models import Checkpoint, Purge, Sample, TrainingRun
from training.services.disk import bytes_below
from training.services.run_folders import cache_root, folder_of
from training.trainer.checkpoint_files import folder_name, steps_in

logger = logging.getLogger(__name__)

LOST = timedelta(hours=1)
"""A purge that has not got on with it for so long has lost its worker: no run takes that long."""

REMEMBERED = timedelta(days=90)
"""How long it is told what a purge has deleted."""


@dataclass
class Freed:
    """What a purge deletes, or would."""

    runs: int = 0
    """Of which nothing is left but the row."""
    checkpoints: int = 0
    cached_files: int = 0
    bytes: int = 0
    """Not those of pictures that the store has as well, by a hard link."""
    failed: int = 0
    """Runs whose files could not all be deleted. The next purge tries again."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Runs of which something is deleted and checkpoints are kept, with the steps."""


@dataclass(frozen=True)
class Doomed:
    """What of one run is deleted, or would be."""

    paths: list[Path]
    checkpoints: int
    kept: set[int]
    """The steps of the checkpoints that stay."""


def retention() -> int:
    """Return after how many days the files of a run that has ended are deleted by the clock; 0: never."""
    return get_config().training.retention_days


def days_or_retention(older_than_days: int | None) -> int:
    """Return how many days ago runs have to have ended: what somebody says, or else what is configured.

    Raises:
        Invalid: nobody says it, and the configuration is to delete nothing (``required``).
    """
    days = retention() if older_than_days is None else older_than_days
    if older_than_days is None and not days:
        detail = "Files are kept for ever (training.retention_days is 0): say how old they have to be."
        raise Invalid(detail, pointer="/older_than_days", code="required")
    return days


def request_purge(
    *, user: User | None, older_than_days: int | None = None, is_dry_run: bool = False
) -> Purge:
    """Ask for the files of runs that ended so long ago to be deleted; the cluster ``default`` does it in a moment.

    Raises:
        Invalid: see :func:`days_or_retention`.
    """
    with transaction.atomic():
        purge = Purge.objects.create(
            requested_by=user, older_than_days=days_or_retention(older_than_days), is_dry_run=is_dry_run
        )
        send(Cluster.DEFAULT, "training.tasks.purge_waiting")
    return purge


def purge_now(*, older_than_days: int | None = None, is_dry_run: bool = False) -> Purge:
    """Do a purge at once, and return what came of it.

    Raises:
        Invalid: see :func:`days_or_retention`.
    """
    days = days_or_retention(older_than_days)
    purge = Purge.objects.create(
        older_than_days=days, is_dry_run=is_dry_run, state=Purge.State.WORKING, worked_at=timezone.now()
    )
    return _carry_out(purge)


def purge_waiting() -> int:
    """Do the purges that were asked for; return how many were done here. Harmless when repeated, or twice at once."""
    done = 0
    while (purge := _claim()) is not None:
        _carry_out(purge)
        done += 1
    return done


def purge_by_the_clock() -> int:
    """Do what waits, and what the configuration wants each day; return how many purges that were."""
    Purge.objects.filter(finished_at__lt=timezone.now() - REMEMBERED).delete()
    if days := retention():
        Purge.objects.create(older_than_days=days)
    return purge_waiting()


def _claim() -> Purge | None:
    """Take the next purge that waits, or that has lost its worker."""
    now = timezone.now()
    is_lost = Q(state=Purge.State.WORKING, worked_at__lt=now - LOST)
    free = Purge.objects.filter(Q(state=Purge.State.WAITING) | is_lost)
    for pk in list(free.order_by("created_at", "pk").values_list("pk", flat=True)):
        # Of two who want it, one finds it taken: the condition is looked at again when the row is written.
        if free.filter(pk=pk).update(state=Purge.State.WORKING, worked_at=now):
            return Purge.objects.get(pk=pk)
    return None


def _carry_out(purge: Purge) -> Purge:
    """Do a purge that was claimed, and note what came of it."""

    def on_progress() -> None:
        Purge.objects.filter(pk=purge.pk).update(worked_at=timezone.now())

    freed = purge_artifacts(
        older_than=timedelta(days=purge.older_than_days), is_dry_run=purge.is_dry_run, on_progress=on_progress
    )
    state, result = Purge.State.DONE, vars(freed)
    if freed.failed:
        state = Purge.State.FAILED
        result = result | {"problem": f"Files of {freed.failed} runs could not be deleted"}
    with transaction.atomic():
        Purge.objects.filter(pk=purge.pk).update(state=state, result=result, finished_at=Now())
        purge.refresh_from_db()
        if not purge.is_dry_run:
            audit.record("training.purge", purge, after=result)
    return purge


def purge_artifacts(
    *, older_than: timedelta, is_dry_run: bool = False, on_progress: Callable[[], None] = lambda: None
) -> Freed:
    """Delete the pictures, checkpoints, samples and logs of runs that ended so long ago, and what nobody uses of the cache.

    What is left: runs that have not ended, checkpoints that are pinned, the best of their run, or about to become an
    adapter, with what it takes to make one of them; and adapters, which lie elsewhere. Nothing outside the training root is
    touched, wherever links lead. What cannot be deleted is left to the next purge, and the other runs get their turn.
    """
    freed = Freed()
    cutoff = timezone.now() - older_than
    ended = TrainingRun.objects.filter(status__in=JobStatus.FINISHED, finished_at__lt=cutoff, purged_at=None)
    for run in ended.order_by("finished_at", "pk").iterator():
        try:
            _purge_run(run, freed, is_dry_run=is_dry_run)
        except OSError as error:  # its text would name the path
            logger.error("The files of run %s cannot be deleted: %s", run.pk, error.strerror)
            freed.failed += 1
        on_progress()
    _purge_cache(cutoff, freed, is_dry_run=is_dry_run)
    return freed


def _purge_run(run: TrainingRun, freed: Freed, *, is_dry_run: bool) -> None:
    root = folder_of(run).root
    if not _is_inside(root):
        logger.error("The folder of run %s does not lie in the training root, and is left alone", run.pk)
        return
    doomed = _look(run, root) if is_dry_run else _set_aside(run, root)
    if doomed is None:
        return
    size = sum(map(bytes_below, doomed.paths))
    if not is_dry_run:
        for path in doomed.paths:
            shutil.rmtree(path)  # does not follow links
        if not doomed.kept:
            if root.exists():
                root.rmdir()
            # Last, or else what could not be deleted would stay for ever.
            TrainingRun.objects.filter(pk=run.pk, status__in=JobStatus.FINISHED).update(purged_at=Now())
    freed.bytes += size
    freed.checkpoints += doomed.checkpoints
    freed.runs += not doomed.kept
    if doomed.kept and doomed.paths:
        freed.kept.append({"run": str(run.pk), "steps": sorted(doomed.kept)})


def _look(run: TrainingRun, root: Path) -> Doomed:
    """Tell what would be deleted of a run."""
    wanted = Q(is_best=True) | Q(pk__in=Checkpoint.objects.filter(run=run).needed().values("pk"))
    rows = Checkpoint.objects.filter(wanted, run=run, removed_at=None)
    there = set(steps_in(root / "checkpoints"))
    kept = there & set(rows.values_list("step", flat=True))
    return Doomed(_what_goes(root, kept), len(there) - len(kept), kept)


def _set_aside(run: TrainingRun, root: Path) -> Doomed | None:
    """Move what is deleted of a run into a folder where nobody looks for it, which is quick, and say so in the rows.

    Whoever resumes the run or pins one of its checkpoints meanwhile waits, and then finds them gone, or us too late: of what
    he gets, nothing is deleted afterwards. None: it goes on, or a program makes an adapter of it just now.
    """
    with transaction.atomic():
        ended = TrainingRun.objects.select_for_update().filter(pk=run.pk, status__in=JobStatus.FINISHED)
        if ended.first() is None:
            return None
        rows = Checkpoint.objects.filter(run=run, removed_at=None).locked_in_order()
        if rows.filter(promotion=Checkpoint.Promotion.WORKING).exists():
            return None
        doomed = _look(run, root)
        rows.exclude(step__in=doomed.kept).update(removed_at=Now(), is_pinned=False, is_best=False)
        Sample.objects.filter(run=run).delete()
        if not doomed.paths:
            return doomed
        aside = root / f".doomed-{uuid.uuid4().hex}"
        aside.mkdir()
        for number, path in enumerate(doomed.paths):
            path.rename(aside / str(number))
    return Doomed([aside], doomed.checkpoints, doomed.kept)


def _what_goes(root: Path, kept: set[int]) -> list[Path]:
    """Return what of the folder of a run is deleted: all that lies there, unless checkpoints stay."""
    if not root.exists():
        return []
    if not kept:
        return list(root.iterdir())
    names = {folder_name(step) for step in kept}
    needed = {"run.json", "manifest.json", "checkpoints"}
    others = [path for path in root.iterdir() if path.name not in needed]
    return others + [path for path in (root / "checkpoints").iterdir() if path.name not in names]


def _purge_cache(cutoff: datetime, freed: Freed, *, is_dry_run: bool) -> None:
    """Delete what of the cache nobody has read or written for long; a training that misses it encodes it again."""
    root = cache_root()
    if not root.is_dir() or not _is_inside(root):
        return
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            status = path.stat()
            if max(status.st_mtime, status.st_atime) >= cutoff.timestamp():
                continue
            if not is_dry_run:
                path.unlink()
        except OSError:  # a trainer was faster, or it is not to be deleted: nobody needs it to be
            continue
        freed.cached_files += 1
        freed.bytes += status.st_size


def _is_inside(path: Path) -> bool:
    """Tell whether a path really lies in the training root: it could be a link, or lead through one."""
    root = roots.training_root().resolve()
    return path.resolve().is_relative_to(root) and path.resolve() != root and not path.is_symlink()
