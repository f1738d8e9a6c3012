"""Training claimed runs: the program is started, listened to, stopped and judged; the rows tell how it goes."""

import logging
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction

from imagehub.config import get_config
from imagehub.config_schema import TrainingConfig
from imagehub.database import drop_connections
from imagehub.errors import ImageHubError
from imagehub.jobs.child import (
    Child,
    ChildDied,
    ChildLimits,
    ChildTimedOut,
    environment_without_secrets,
    watch,
)
from imagehub.jobs.lease import (
    JobCancelled,
    JobFailed,
    JobInterrupted,
    Lease,
    LeaseLost,
    WorkerStopping,
    told_as_failures,
)
from imagehub.jobs.protocol import ChildExit, ExitCode
from imagehub.jobs.run_log import RunLog
from training.external.order import Order
from training.models import Adapter, Checkpoint, TrainingRun
from training.pipelines.failures import FailureCode
from training.pipelines.references import ModelKind, ModelReference
from training.recipe import Recipe
from training.services import datasets
from training.services.adapters import delete_adapter, import_adapter
from training.services.base_models import locate_base_model
from training.services.recording import Recorder
from training.services.run_folders import cache_root, file_in, folder_of
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.endings import status_after

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the row is asked what people want of a run that is under way."""

HOPELESS = {
    ExitCode.BAD_REQUEST: "bad_request",
    ExitCode.BAD_DATA: "bad_data",
    ExitCode.MODEL_MISSING: "model_missing",
    ExitCode.NOT_A_NUMBER: "not_a_number",
    ExitCode.OUT_OF_MEMORY: "out_of_memory",
    ExitCode.STORAGE: "storage_error",
}
"""How a program ends that would end so again."""


def train(run: TrainingRun, lease: Lease) -> None:
    """Train the adapter of a claimed run: from the start, or from its latest checkpoint that is sound.

    Raises:
        JobFailed: it cannot be trained, for a reason that would not go away.
        JobInterrupted: the program was lost; the next attempt goes on from the last checkpoint.
        JobCancelled, WorkerStopping, LeaseLost: see ``Lease``.
    """
    config = get_config().training
    folder = folder_of(run)
    with told_as_failures():
        _prepare(run, lease, folder, config)
        recorder = Recorder(run, lease)
        try:
            outcome_is_stop = _follow(run, lease, recorder, folder, config)
        finally:
            _flush_last(recorder)
        if outcome_is_stop:
            raise JobCancelled if lease.cancel_requested else WorkerStopping
        _take_in(run, lease, recorder, folder)


def _flush_last(recorder: Recorder) -> None:
    """Write what is left; how the program ended is the news, and not that this cannot be written."""
    try:
        recorder.flush()
    except LeaseLost:
        pass
    except DatabaseError as error:
        logger.warning("The database did not take what a training told last (%s)", type(error).__name__)
        drop_connections()


def _prepare(run: TrainingRun, lease: Lease, folder: RunFolder, config: TrainingConfig) -> None:
    """Put everything where the trainer looks for it."""

    def on_progress(done: int, total: int) -> None:
        said = f"Fetching the pictures ({done} of {total})"
        lease.report(step=run.step, total_steps=run.total_steps, message=said)
        lease.raise_if_stopping()

    lease.raise_if_stopping()
    model = locate_base_model(run.base_model)
    folder.root.mkdir(parents=True, exist_ok=True)
    datasets.materialise(run.dataset, folder, on_progress=on_progress)
    assignment_of(run, model, config).write(folder)
    if (external := config.external) is not None:
        Order(external.command, external.progress, external.result).write(folder)


def assignment_of(run: TrainingRun, model: Mapping[str, Any], config: TrainingConfig) -> Assignment:
    """Return what a trainer is told about a run; ``model`` says where its weights are."""
    return Assignment(
        run_id=str(run.pk),
        name=run.name,
        model=ModelReference(model["source"], ModelKind(model["kind"]), model["allow_download"]),
        model_name=run.base_model.name,
        architecture=run.base_model.architecture or "other",
        recipe=Recipe.model_validate(run.config),
        cache=cache_root(),
        trigger_word=run.trigger_word,
        description=run.description,
        device=config.device,
        threads=config.threads,
        minimum_free_bytes=get_config().storage.minimum_free_bytes,
        cache_bytes=config.cache_bytes,
        token=str(run.token or ""),
        pinned=_pinned(run),
    )


def _pinned(run: TrainingRun) -> tuple[int, ...]:
    rows = Checkpoint.objects.needed().filter(run=run, removed_at=None)
    return tuple(rows.order_by("step").values_list("step", flat=True))


def command(folder: RunFolder, config: TrainingConfig) -> list[str]:
    """Return the program that trains, and its arguments: by accelerate, where there is to be one process for each GPU."""
    if config.external is not None:
        return [sys.executable, "-m", "training.external", str(folder.root)]
    if config.processes == 1:
        return [sys.executable, "-m", "training.trainer", str(folder.root)]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(config.processes)]
    return [*launch, "--module", "training.trainer", str(folder.root)]


def _follow(
    run: TrainingRun, lease: Lease, recorder: Recorder, folder: RunFolder, config: TrainingConfig
) -> bool:
    """Run the trainer until it ends; tell whether it was asked to end before it was done."""
    log = RunLog(folder.log, limit_bytes=config.log_limit_bytes, sensitive=run.sensitive_texts())
    log.begin_job()
    child = Child(
        command(folder, config),
        cwd=settings.BASE_DIR,
        log=log,
        env=environment_without_secrets() | {"OMP_NUM_THREADS": str(config.threads)},
    )
    wishes = _Wishes(run, child, folder, is_alone=config.processes == 1)

    def should_stop() -> bool:
        wants_stop = lease.should_stop()
        wishes.pass_on(is_stopping=wants_stop)
        stuck, patience = recorder.stuck_for(), recorder.patience(config.phase_seconds)
        if stuck > patience and not wants_stop:
            log.write_line(f"[ended from here: nothing moved for {stuck:.0f} seconds]")
            raise JobInterrupted(
                "training_hung",
                f"The training lived, but nothing moved for {patience:g} seconds in the phase “{recorder.phase or 'start'}”.",
            )
        return wants_stop

    last_words: list[ExitCode] = []

    def on_event(event: dict[str, Any]) -> None:
        recorder.take(event)
        if (status := status_after(event)) is not None:
            last_words.append(status)

    child.start()
    limits = ChildLimits(
        wall_seconds=config.wall_seconds, idle_seconds=config.idle_seconds, grace_seconds=config.grace_seconds
    )
    try:
        outcome = watch(
            child,
            limits=limits,
            on_event=on_event,
            should_stop=should_stop,
            ask_to_stop=wishes.ask_to_stop,
        )
    except ChildTimedOut as error:
        raise _timed_out(error) from error
    except ChildDied as error:
        ended = error.exit
        if config.processes > 1 and last_words:  # its launcher has one status for all that can happen
            ended = ChildExit(last_words[-1])
        if ended.code == ExitCode.FINISHED:
            return False
        if ended.code == ExitCode.STOPPED and wishes.has_asked_to_stop:
            return True
        raise _died(ended, recorder) from error
    finally:
        recorder.note(foreign_lines=child.skipped, malformed_events=recorder.skipped)
    return outcome.stopped


class _Wishes:
    """What people want of a run that is under way, passed on to its program."""

    def __init__(self, run: TrainingRun, child: Child, folder: RunFolder, *, is_alone: bool) -> None:
        self._run = run
        self._child = child
        self._folder = folder
        self._is_alone = is_alone
        self._looked_at = float("-inf")
        self._wants_saving = True
        self._pinned = Assignment.read(folder).pinned
        self._asked_to_save: bool | None = None

    def ask_to_stop(self, child: Child) -> None:
        """Ask it to stop, and say whether to save first: also when the cluster ends, for the run goes on later.

        Once, and in one way: the second time it is told to stop, a trainer does so without saving. A signal also breaks off
        the loading of a model; but where accelerate has started several processes, it would end them all.
        """
        self._look()
        self._asked_to_save = self._wants_saving
        if self._asked_to_save and self._is_alone:
            child.signal_group(signal.SIGTERM)
        else:
            child.send({"type": "stop", "save": self._asked_to_save})

    @property
    def has_asked_to_stop(self) -> bool:
        return self._asked_to_save is not None

    def pass_on(self, *, is_stopping: bool) -> None:
        """Tell the program what has been decided since."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._look()
        if is_stopping and self._asked_to_save and not self._wants_saving:
            self._asked_to_save = False
            with suppress(ChildDied):
                self._child.send({"type": "stop", "save": False})
        self._pass_on_pins()

    def _look(self) -> None:
        """Read what is wanted now. While the database does not answer, what was wanted last is."""
        self._looked_at = time.monotonic()
        try:
            row = TrainingRun.objects.values_list("cancel_requested_at", "stop_mode").get(pk=self._run.pk)
            self._pinned = _pinned(self._run)
        except DatabaseError as error:
            logger.warning("The database did not say what is wanted of a training (%s)", type(error).__name__)
            drop_connections()
        else:
            self._wants_saving = row[0] is None or row[1] == TrainingRun.StopMode.SAVE

    def _pass_on_pins(self) -> None:
        """Write down what is pinned now: a trainer reads it before it deletes checkpoints."""
        assignment = Assignment.read(self._folder)
        if self._pinned != assignment.pinned:
            replace(assignment, pinned=self._pinned).write(self._folder)


def _timed_out(error: ChildTimedOut) -> JobFailed:
    if error.which == "wall":
        return JobFailed(
            "time_limit",
            f"The training took longer than the {error.seconds:g} seconds that are configured. It can be resumed.",
        )
    return JobInterrupted(
        "training_silent", f"The training gave no sign of life for {error.seconds:g} seconds."
    )


def _died(ended: ChildExit, recorder: Recorder) -> JobFailed:
    """Return what to say of a program that ended before it was done."""
    hopeless = HOPELESS.get(ended.code)  # type: ignore[call-overload]
    if recorder.failure is not None:
        code, detail = recorder.failure
    else:
        code, detail = hopeless or f"training_{ended.name.lower()}", ended.description
    detail = detail or ended.description
    if code == FailureCode.FOLDER_BUSY:  # with what an earlier attempt has left there, or somebody by hand
        return JobInterrupted(code, detail, is_counted=False)
    return JobFailed(code, detail) if hopeless else JobInterrupted(code, detail)


def _take_in(run: TrainingRun, lease: Lease, recorder: Recorder, folder: RunFolder) -> None:
    """Make an adapter of what the trainer has exported, and complete the run: both or neither."""
    finished = recorder.finished
    if finished is None:
        raise JobInterrupted("no_result", "The training ended without saying what came out of it.")
    said = finished.get("step")
    step = said if isinstance(said, int) and 0 <= said <= run.total_steps else run.total_steps
    adapter, is_new = _adapter_of(run, step, folder, finished.get("file"))
    try:
        with transaction.atomic():
            datasets.require_pictures(run.dataset)  # they may have been taken down since it began
            recorder.flush()
            Adapter.objects.filter(pk=adapter.pk, training_run=None).update(
                training_run=run, training_step=step
            )
            Checkpoint.objects.filter(run=run, step=step).update(
                adapter=adapter, promotion=Checkpoint.Promotion.DONE
            )
            lease.complete(adapter=adapter, phase="")
    except datasets.PicturesGone:  # as with all that descends from them, it stays and makes nothing more
        Adapter.objects.filter(pk=adapter.pk, training_run=run).update(is_enabled=False)
        raise
    except LeaseLost:
        if is_new:
            with suppress(ImageHubError):
                delete_adapter(adapter)
        raise
    with suppress(OSError):
        shutil.rmtree(folder.images)  # links or copies of what the store has


def _adapter_of(run: TrainingRun, step: int, folder: RunFolder, name: Any) -> tuple[Adapter, bool]:
    """Return the adapter of a run, and whether it is new: an attempt that died may have taken it in already."""
    earlier = Adapter.objects.filter(training_run=run, training_step=step).first()
    if earlier is not None:
        return earlier, False
    file = file_in(folder, name)
    if file is None:
        raise JobInterrupted("no_result", "The file of the adapter is not where the training said it is.")
    return import_adapter(
        file,
        name=run.name,
        file_name=Path(file).name,
        owner=run.owner,
        description=run.description,
        trigger_words=[run.trigger_word] if run.trigger_word else None,
        training_run=run,
        training_step=step,
    )
