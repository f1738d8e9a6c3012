"""From a command line to an exit status: what concerns the process of a training, and not its numbers."""

import argparse
import logging
import threading
from contextlib import suppress

from imagehub.jobs.protocol import Channel, ExitCode
from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.pipelines.hardware import set_threads
from training.trainer.alone import alone_in
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.endings import EXIT_CODES
from training.trainer.export import export_checkpoint
from training.trainer.processes import Processes
from training.trainer.running import Run
from training.trainer.stopping import Interrupted, Stop
from training.weights import Layout

logger = logging.getLogger(__name__)


def train(folder: RunFolder, assignment: Assignment, channel: Channel) -> ExitCode:
    """Train what a folder says, listening to signals and to the guard, and tell how it ended."""
    set_threads(assignment.threads)
    stop = Stop()
    stop.listen_to_signals()
    try:
        processes = Processes(assignment.device)
        if not processes.is_main:
            run = Run(folder, assignment, channel=None, processes=processes, stop=stop)
            return ExitCode.FINISHED if run.carry_out() else ExitCode.STOPPED
        threading.Thread(target=_listen, args=(channel, stop), name="requests", daemon=True).start()
        with alone_in(folder, should_stop=lambda: stop.is_requested):
            run = Run(folder, assignment, channel=channel, processes=processes, stop=stop)
            return ExitCode.FINISHED if run.carry_out() else ExitCode.STOPPED
    except Interrupted:
        logger.info("Interrupted; nothing was saved")
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, the guard must be told
        return report(error, channel)


def export(folder: RunFolder, options: argparse.Namespace, channel: Channel) -> ExitCode:
    """Write a checkpoint as an adapter file, and tell how that ended."""
    try:
        exported = export_checkpoint(
            folder, options.export, layout=Layout(options.layout), output=options.output
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the guard must be told
        return report(error, channel)
    is_inside = exported.file.is_relative_to(folder.root)
    channel.emit(
        "finished",
        step=exported.step,
        file=str(exported.file.relative_to(folder.root)) if is_inside else exported.file.name,
        sha256=exported.sha256,
        size_bytes=exported.size_bytes,
    )
    return ExitCode.FINISHED


def report(error: Exception, channel: Channel) -> ExitCode:
    """Tell the guard of a failure, the run log of all there is to know of it, and return the exit status."""
    if isinstance(error, BrokenPipeError):
        logger.warning("The guard is gone")
        return ExitCode.STOPPED
    logger.error("The training failed", exc_info=error)
    failure = _as_failure(error)
    with suppress(BrokenPipeError):
        channel.emit("error", code=failure.code, detail=failure.detail)
    return EXIT_CODES.get(failure.code, ExitCode.BUG)


def _as_failure(error: Exception) -> RequestFailed:
    """Return what to tell the owner about an error; unexpected ones are shown only by their type."""
    if isinstance(error, RequestFailed):
        return error
    if is_out_of_memory(error):
        return RequestFailed(FailureCode.OUT_OF_MEMORY, "The training does not fit into memory.")
    return RequestFailed(
        FailureCode.TRAINER_ERROR, f"The trainer met an unexpected error ({type(error).__name__})."
    )


def _listen(channel: Channel, stop: Stop) -> None:
    """Do what the guard asks for; runs in a thread of its own until the pipe is closed."""
    for message in channel.requests():
        match message.get("type"):
            case "stop":
                stop.request(save=message.get("save", True) is not False)
            case "sample":
                stop.ask_for_samples()
            case _:
                logger.warning("Ignored a request of a kind that means nothing here")
