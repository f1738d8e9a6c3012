"""The command line: train what a folder says, or make an adapter file of one of its checkpoints."""

import argparse
import io
import logging
import os
import sys
from pathlib import Path

from imagehub.jobs.parent_death import die_with_parent
from imagehub.jobs.protocol import Channel, ExitCode, end_with
from training.pipelines.environment import prepare_environment
from training.pipelines.failures import RequestFailed
from training.trainer.assignment import Assignment, RunFolder

LAUNCHED = "LOCAL_RANK"
"""Set in the environment of processes that ``accelerate launch`` and torchrun start."""

DESCRIPTION = """\
Train one LoRA adapter. FOLDER holds run.json (what to do), manifest.json and the pictures; everything that comes of it is
written there. A training that was broken off goes on from its newest good checkpoint. Progress is told as JSON
lines on the event pipe (by hand: standard output). SIGTERM and Ctrl-C save first; a second one does not.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.trainer", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a run")
    one = parser.add_argument_group("an adapter file of a checkpoint, without training")
    one.add_argument("--export", type=int, metavar="STEP", help="of which step")
    one.add_argument(
        "--layout",
        choices=["kohya", "diffusers"],
        default="kohya",
        help="how its tensors are named (default: kohya, which everything reads)",
    )
    one.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write it (default: into the folder)"
    )
    return parser


def open_channel() -> Channel:
    """Return the channel to the guard. Of the processes that ``accelerate launch`` starts, only the first has one."""
    if LAUNCHED in os.environ:
        die_with_parent()  # the launcher gives each a session of its own, where the guard does not find it
        if os.environ.get("RANK", "0") != "0":
            return Channel(io.BytesIO(), io.BytesIO())
    return Channel.from_environment()


def main() -> int:
    """Parse the command line and run; return the exit status."""
    parser = build_parser()
    options = parser.parse_args()
    if options.export is None and options.output is not None:
        parser.error("--output needs --export")
    folder = RunFolder(options.folder.resolve())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    channel = open_channel()
    with channel.alive():  # from the first moment on: importing torch alone may take a minute
        return carry_out(folder, options, channel)


def carry_out(folder: RunFolder, options: argparse.Namespace, channel: Channel) -> int:
    """Do what the command line says; return the exit status."""
    try:
        assignment = Assignment.read(folder)
    except RequestFailed as failure:
        channel.emit("error", code=failure.code, detail=failure.detail)
        return ExitCode.BAD_REQUEST
    prepare_environment(assignment.threads)

    # Imported late: torch takes seconds, and neither --help nor a mistake in run.json should wait for it.
    from training.trainer import program

    if options.export is not None:
        return program.export(folder, options, channel)
    return program.train(folder, assignment, channel)


if __name__ == "__main__":
    end_with(main)
