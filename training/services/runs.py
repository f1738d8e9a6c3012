"""The life of training runs: made, started, stopped, resumed, and made again."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, F, Sum
from django.db.models.functions import Now

from albums.models import Album
from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.errors import Conflict, NotReady
from imagehub.jobs.capacity import require_capacity
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.queue import ring
from training.estimates import estimate_training
from training.models import Architecture, BaseModel, Dataset, ImageInspection, TrainingRun
from training.recipe import Recipe
from training.services import datasets
from training.services.loadable import reasons_against
from training.services.preflight import lack_of_space
from training.services.recipes import resolve_recipe, with_steps
from training.services.resuming import is_there, verified_step

UNTRAINABLE = {Architecture.SD3, Architecture.FLUX}
CHANGEABLE = frozenset({"name", "description", "priority"})


class ModelUnusable(NotReady):
    code = "model_unusable"
    title = "The base model cannot be trained on"


class NotTrainable(NotReady):
    """Something that a preflight reports as a blocker, under its code."""

    title = "The pictures cannot be trained on"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class NotStartable(Conflict):
    code = "not_pending"
    title = "The run has been started already"


class AlreadyFinished(Conflict):
    code = "already_finished"
    title = "The run has finished"


class NotResumable(Conflict):
    code = "not_resumable"
    title = "The run cannot go on"


class Purged(NotResumable):
    code = "artifacts_purged"
    title = "The files of the run have been deleted"


def create_run(
    *,
    owner: User,
    name: str,
    albums: Sequence[Album],
    base_model: BaseModel,
    description: str = "",
    trigger_word: str = "",
    config: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Make a pending run with a snapshot of the captioned pictures of some albums.

    Everything that decides the result is resolved now: later changes of albums, captions, defaults or the configuration do
    not reach it.

    Raises:
        InvalidFields: the recipe is none, or out of bounds; pointers begin with ``/config``.
        ModelUnusable: the base model is disabled, damaged or of a family that is not trained here.
        Invalid, NotReady: see :func:`training.services.datasets.snapshot`.
    """
    check_base_model(base_model)
    recipe = resolve_recipe(config or {}, base_model, albums=albums, trigger_word=trigger_word)
    with transaction.atomic():
        dataset = datasets.snapshot(albums, recipe, owner)
        run = TrainingRun(
            owner=owner,
            name=name,
            description=description,
            base_model=base_model,
            dataset=dataset,
            trigger_word=trigger_word,
            config=recipe.model_dump(mode="json"),
            config_sha256=recipe.digest(),
            total_steps=recipe.steps,
            max_attempts=get_config().training.max_attempts,
            estimate=_estimate(recipe, base_model, dataset),
        )
        run.full_clean(validate_constraints=False, exclude=["owner", "base_model", "dataset", "cloned_from"])
        run.save(force_insert=True)
    return run


def start_run(run: TrainingRun) -> TrainingRun:
    """Queue a pending run.

    Raises:
        NotStartable: it was started before.
        ModelUnusable: its base model is not to be used any more.
        PicturesGone: pictures of its data set are in the trash, or were deleted.
        NotTrainable: pictures of its data set are missing or damaged, or the disk is too full.
        ConcurrencyLimit: as many runs are queued or running as may be.
    """
    if run.status != JobStatus.PENDING:
        raise NotStartable(f"The run is {run.status}; only one that is pending is started.")
    check_base_model(run.base_model)
    check_dataset(run)
    with transaction.atomic():
        if not TrainingRun.objects.filter(pk=run.pk, status=JobStatus.PENDING).exists():
            raise NotStartable("The run has been started or cancelled meanwhile.")
        require_capacity(TrainingRun, get_config().training.max_active)
        if not TrainingRun.objects.filter(pk=run.pk).enqueue():
            raise NotStartable("The run has been started or cancelled meanwhile.")
        run.refresh_from_db()
        audit.record(
            "trainingrun.start", run, before={"status": JobStatus.PENDING}, after={"status": run.status}
        )
        ring(Cluster.TRAINING)
    return run


def cancel_run(run: TrainingRun, mode: TrainingRun.StopMode = TrainingRun.StopMode.SAVE) -> TrainingRun:
    """Cancel a run: one that waits ends at once, one that runs is asked to stop, and to save what it has learned or not.

    Whoever asked to save may ask to discard afterwards, should that take too long.

    Raises:
        AlreadyFinished: there is nothing left to cancel.
    """
    with transaction.atomic():
        before = {"status": run.status, "stop_mode": run.stop_mode}
        runs = TrainingRun.objects.filter(pk=run.pk)
        runs.active().update(stop_mode=mode)
        reached = runs.request_cancel()
        run.refresh_from_db()
        if reached:
            after = {"status": run.status, "stop_mode": run.stop_mode}
            audit.record("trainingrun.cancel", run, before=before, after=after)
    if not reached:
        raise AlreadyFinished(f"The run is {run.status} already.")
    return run


def step_to_resume(run: TrainingRun) -> int:
    """Return the step that a failed or cancelled run can go on from: that of its latest checkpoint that is sound.

    Reads all of that checkpoint. Not to be called with a transaction open.

    Raises:
        NotResumable: it has not ended so, or no sound checkpoint is left of it.
        Purged: its files were deleted.
        ModelUnusable: its base model is not to be used any more.
        PicturesGone: pictures of its data set are in the trash, or were deleted.
    """
    if run.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise NotResumable(f"The run is {run.status}; only what has failed or was cancelled goes on.")
    if run.purged_at is not None:
        raise Purged("The files of the run have been deleted. Clone it to train it again.")
    check_base_model(run.base_model)
    datasets.require_pictures(run.dataset)
    step = verified_step(run)
    if step is None:
        raise NotResumable("No sound checkpoint is left of the run. Clone it to train it again.")
    return step


def resume_run(run: TrainingRun, *, steps: int | None = None, from_step: int | None = None) -> TrainingRun:
    """Queue a failed or cancelled run again: it goes on from its latest checkpoint that is sound.

    Args:
        run: it.
        steps: how many it is to have now, if not as many as before.
        from_step: what :func:`step_to_resume` has told a caller who has a transaction open meanwhile. None: ask it.

    Raises:
        NotResumable: it has not ended so, or no sound checkpoint is left of it.
        InvalidFields: so many steps are out of bounds, or it has made them already.
        ModelUnusable, PicturesGone, Purged: see :func:`step_to_resume`.
        ConcurrencyLimit: as many runs are queued or running as may be.
    """
    step = step_to_resume(run) if from_step is None else from_step
    changes: dict[str, Any] = {}
    if steps is not None:
        recipe = with_steps(run.config, steps, done=step)
        changes = {
            "config": recipe.model_dump(mode="json"),
            "config_sha256": recipe.digest(),
            "total_steps": recipe.steps,
        }
    with transaction.atomic():
        require_capacity(TrainingRun, get_config().training.max_active)
        before = {"status": run.status, "total_steps": run.total_steps}
        moved = TrainingRun.objects.filter(pk=run.pk, purged_at=None).move(
            JobStatus(run.status),
            JobStatus.QUEUED,
            queued_at=Now(),
            # It keeps count of its attempts, and gets as many more as a new one has.
            max_attempts=F("attempt") + get_config().training.max_attempts,
            error_code="",
            error_detail="",
            error_trace="",
            message="",
            stop_mode=TrainingRun.StopMode.SAVE,
            **changes,
        )
        # A purge moves files while it holds the row, as we do now: what is here at this moment stays.
        if not moved or not is_there(run, step):
            raise NotResumable("Somebody has changed the run meanwhile.")
        run.refresh_from_db()
        after = {"status": run.status, "total_steps": run.total_steps, "from_step": step}
        audit.record("trainingrun.resume", run, before=before, after=after)
        ring(Cluster.TRAINING)
    return run


def clone_run(
    run: TrainingRun, *, owner: User, name: str | None = None, description: str | None = None
) -> TrainingRun:
    """Make a pending run with the recipe and the data set of another one: trained on a CPU it has the same result.

    Raises:
        ModelUnusable: the base model is not to be used any more.
        PicturesGone: pictures of the data set are in the trash, or were deleted, or nobody knows which there were.
    """
    check_base_model(run.base_model)
    datasets.require_pictures(run.dataset)
    clone = TrainingRun(
        owner=owner,
        name=run.name if name is None else name,
        description=run.description if description is None else description,
        base_model=run.base_model,
        dataset=run.dataset,
        trigger_word=run.trigger_word,
        config=run.config,
        config_sha256=run.config_sha256,
        estimate=run.estimate,
        total_steps=run.config.get("steps", run.total_steps),
        max_attempts=get_config().training.max_attempts,
        cloned_from=run,
    )
    with transaction.atomic():
        clone.save(force_insert=True)
    return clone


def change_run(run: TrainingRun, **changes: Any) -> TrainingRun:
    """Change what a run is called, what is said of it, or whom it goes before.

    Raises:
        TypeError: there is no such field, or it is not for people to change.
        ValidationError: a value is out of range.
    """
    if unknown := changes.keys() - CHANGEABLE:
        raise TypeError(f"Not for people to change: {', '.join(sorted(unknown))}.")
    with transaction.atomic():
        # The worker writes other columns of the row by conditional UPDATEs, so only these are saved.
        current = TrainingRun.objects.select_for_update(no_key=True).get(pk=run.pk)
        changed = [name for name, value in changes.items() if getattr(current, name) != value]
        for name in changed:
            setattr(current, name, changes[name])
        current.clean_fields(exclude={field.name for field in TrainingRun._meta.fields} - set(changed))
        if changed:
            current.save(update_fields=changed)
        else:  # that somebody asked for it belongs into the audit trail all the same
            audit.record("trainingrun.change", current)
    return current


def check_base_model(model: BaseModel) -> None:
    """Check that adapters are trained on a base model here, as far as its row and the live workers tell.

    Raises:
        ModelUnusable: they are not; the text says why.
    """
    if not model.is_enabled:
        raise ModelUnusable(f"The base model “{model}” is disabled.")
    if reason := reasons_against([model], Cluster.TRAINING).get(model.pk):
        raise ModelUnusable(reason)
    if model.architecture in UNTRAINABLE:
        family = model.get_architecture_display()
        raise ModelUnusable(f"The base model “{model}” is {family}, for which no training is here.")


def _estimate(recipe: Recipe, base_model: BaseModel, dataset: Dataset) -> dict[str, Any]:
    """Return what a run is expected to take; nothing where nobody can tell how large the base model is."""
    pictures = dataset.images.aggregate(count=Count("pk"), bytes=Sum("image__size_bytes"))
    found = estimate_training(
        recipe, base_model, pictures=pictures["count"], picture_bytes=pictures["bytes"] or 0
    )
    return found.to_json() if found else {}


def check_dataset(run: TrainingRun) -> None:
    """Check the pictures of a run, as far as somebody has looked at them, and the room for it.

    Raises:
        PicturesGone: some are in the trash, or were deleted.
        NotTrainable: some are missing or cannot be read, or the disk is too full.
    """
    datasets.require_pictures(run.dataset)
    problems = ImageInspection.Problem
    looks = ImageInspection.objects.filter(image__in=run.dataset.images.values("image"))
    for problem, code, said in (
        (problems.MISSING, "missing_files", "are not in the store"),
        (problems.UNREADABLE, "unreadable_pictures", "cannot be read"),
    ):
        if count := looks.filter(problem=problem).count():
            raise NotTrainable(code, f"The files of {count} pictures of the data set {said}.")
    if detail := lack_of_space(run.estimate.get("disk_bytes") or 0):
        raise NotTrainable("disk_full", detail)
