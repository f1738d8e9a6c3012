"""Clearing out the files of runs that ended some time ago."""

import os
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from imagehub import roots
from imagehub.jobs.models import JobStatus
from imagehub.operations import purges
from imagehub.operations.folders import (
    DOOMED,
    bytes_below,
    count_strays,
    delete_folder,
    files_below,
    is_empty,
    lies_in,
    without_rows,
)
from imagehub.operations.walking import older_than
from training.models import Checkpoint, Sample, TrainingRun
from training.services.labeling import forget_items
from training.services.run_folders import cache_root, folder_of
from training.trainer.checkpoint_files import folder_name, steps_in

PURGE = "training"
"""The name of this kind of purge."""

MOST_KEPT = 100
"""Of so many runs a record tells the checkpoints that are kept."""


@dataclass(kw_only=True)
class Freed(purges.Freed):
    """What a purge of runs deletes, or would. What failed are runs."""

    runs: int = 0
    """Of which nothing is left but the row."""
    checkpoints: int = 0
    cached_files: int = 0
    labeled: int = 0
    """Images of which it is forgotten what became of them in labeling jobs."""
    strays: int = 0
    """Folders that are named like those of runs, and have no row. They stay."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Runs of which something is deleted and checkpoints are kept, with the steps; of so many of them as are told."""
    runs_kept: int = 0
    """How many these are."""


@dataclass(frozen=True)
class Doomed:
    """What of one run is deleted, or would be."""

    paths: list[Path]
    checkpoints: int
    kept: set[int]
    """The steps of the checkpoints that stay."""


class _Missing(Exception):
    """Of a run a checkpoint that somebody wants has no folder."""


def register() -> None:
    """Let the platform clear out files of runs."""
    purges.register(
        purges.PurgeKind(
            name=PURGE,
            things="runs",
            setting="training.retention_days",
            clock="purges.training_at",
            perform=purge_artifacts,
            counts={
                "runs": "runs",
                "checkpoints": "checkpoints",
                "cached_files": "cached files",
                "labeled": "items of labeling jobs",
            },
        )
    )


def purge_artifacts(
    *,
    cutoff: datetime,
    is_dry_run: bool = False,
    limit: int | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Freed:
    """Delete the pictures, checkpoints, samples and logs of runs that ended before, and what nobody has used of the cache since.

    What is left: runs that have not ended, checkpoints that are pinned, the best of their run, or about to become an
    adapter, with what it takes to make one of them; the curves; and adapters, which lie elsewhere. Nothing outside the training
    root is touched, wherever links lead. What cannot be deleted is left to the next purge, and the other runs get their turn.

    Of labeling jobs that ended before it is forgotten what became of each image. Folders of runs without a row are counted. With a
    limit to the runs of which something is deleted, only these.

    Raises:
        NotThere: there is no folder of a run at all, and there are checkpoints by the rows.
    """
    place = folder_of(TrainingRun()).root.parent
    # First the disk: rows are written before files go.
    if is_empty(place) and Checkpoint.objects.filter(removed_at=None).exists():
        raise purges.NotThere("The training root is missing or empty, and runs should have checkpoints there")
    freed = Freed()
    for keys in older_than(TrainingRun.objects.filter(purged_at=None), cutoff, by="finished_at"):
        runs = TrainingRun.objects.in_bulk(keys)
        for run in filter(None, map(runs.get, keys)):
            if limit is not None and freed.runs + freed.runs_kept >= limit:
                return freed
            try:
                _purge_run(run, freed, is_dry_run=is_dry_run)
            except OSError as error:  # its text would name the path
                freed.fail(f"run {run.pk}", error.strerror)
            on_progress()
    if limit is None:
        freed.labeled = forget_items(cutoff=cutoff, is_dry_run=is_dry_run, on_progress=on_progress)
        if lies_in(place, roots.training_root()):
            strays = without_rows(place, TrainingRun.objects.all(), cutoff=cutoff)
            freed.strays = count_strays(strays, "run", on_progress=on_progress)
        _purge_cache(cutoff, freed, is_dry_run=is_dry_run, on_progress=on_progress)
    return freed


def _purge_run(run: TrainingRun, freed: Freed, *, is_dry_run: bool) -> None:
    root = folder_of(run).root
    if not lies_in(root, roots.training_root()):
        freed.fail(f"run {run.pk}", "its folder does not lie in the training root, and is left alone")
        return
    try:
        doomed = _look(run, root) if is_dry_run else _set_aside(run, root)
    except _Missing:
        freed.fail(
            f"run {run.pk}", "checkpoints that are to be kept are not there, and nothing of it is touched"
        )
        return
    if doomed is None:
        return
    size = sum(map(bytes_below, doomed.paths))
    if not is_dry_run:
        for path in doomed.paths:
            delete_folder(path)
        if not doomed.kept:
            if root.exists():
                root.rmdir()
            # Last, or else what could not be deleted would stay for ever.
            TrainingRun.objects.filter(pk=run.pk, status__in=JobStatus.FINISHED).update(purged_at=Now())
    freed.bytes += size
    freed.checkpoints += doomed.checkpoints
    freed.runs += not doomed.kept
    if doomed.kept and doomed.paths:
        freed.runs_kept += 1
        if len(freed.kept) < MOST_KEPT:
            freed.kept.append({"run": str(run.pk), "steps": sorted(doomed.kept)})


def _look(run: TrainingRun, root: Path) -> Doomed:
    """Tell what would be deleted of a run.

    Raises:
        _Missing: a checkpoint that somebody wants has no folder.
    """
    wanted = Q(is_best=True) | Q(pk__in=Checkpoint.objects.filter(run=run).needed().values("pk"))
    rows = Checkpoint.objects.filter(wanted, run=run, removed_at=None)
    checkpoints = root / "checkpoints"
    there = set() if checkpoints.is_symlink() else set(steps_in(checkpoints))
    kept = set(rows.values_list("step", flat=True))
    if not kept <= there:
        raise _Missing
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
        _put_back(root, set(rows.values_list("step", flat=True)))
        doomed = _look(run, root)
        rows.exclude(step__in=doomed.kept).update(removed_at=Now(), is_pinned=False, is_best=False)
        Sample.objects.filter(run=run).delete()
        if not doomed.paths:
            return doomed
        aside = root / f"{DOOMED}{uuid.uuid4().hex}"
        for path in doomed.paths:
            place = aside / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    return Doomed([aside], doomed.checkpoints, doomed.kept)


def _put_back(root: Path, steps: set[int]) -> None:
    """Move back what an earlier purge has set aside, if it was killed before the rows said so: by them these steps are there."""
    lost = steps - set(steps_in(root / "checkpoints"))
    for aside in root.glob(f"{DOOMED}*"):
        if not lies_in(aside / "checkpoints", root) or not lost & set(steps_in(aside / "checkpoints")):
            continue
        (root / "checkpoints").mkdir(exist_ok=True)
        for path in [*(aside / "checkpoints").iterdir(), *aside.iterdir()]:
            place = root / path.relative_to(aside)
            if not os.path.lexists(place):
                path.rename(place)


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


def _purge_cache(
    cutoff: datetime, freed: Freed, *, is_dry_run: bool, on_progress: Callable[[], None]
) -> None:
    """Delete what of the cache nobody has read or written for long; a training that misses it encodes it again."""
    root = cache_root()
    if not root.is_dir() or not lies_in(root, roots.training_root()):
        return
    for path in files_below(root):
        on_progress()
        try:
            status = path.lstat()
            if (
                not stat.S_ISREG(status.st_mode)
                or max(status.st_mtime, status.st_atime) >= cutoff.timestamp()
            ):
                continue
            if not is_dry_run:
                path.unlink()
        except OSError:  # a trainer was faster, or it is not to be deleted: nobody needs it to be
            continue
        freed.cached_files += 1
        freed.bytes += status.st_size
