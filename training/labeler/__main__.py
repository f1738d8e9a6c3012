"""The command line: serve a guard over its pipes, or label files by hand."""

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

from imagehub.jobs.protocol import Channel, ExitCode, end_with
from training.labeler.findings import NUDENET, STARTER, TASKS, NothingFound
from training.pipelines.environment import prepare_environment
from training.pipelines.failures import RequestFailed
from training.pipelines.references import ModelKind

DESCRIPTION = """\
Let a model look at pictures and say what it sees. Without FILE the labeler reads requests as JSON lines from its request
pipe (by hand: standard input) and answers with events on its event pipe (by hand: standard output). With files it
prints one JSON object for each and ends.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.labeler", description=DESCRIPTION)
    parser.add_argument("--task", choices=TASKS, required=True, help="what to say of a picture")
    parser.add_argument(
        "--model",
        required=True,
        help=f"a folder of the transformers library, a hub id, “{STARTER}” for drawings of the starter model, or"
        f" “{NUDENET}”",
    )
    parser.add_argument("--name", help="what the model is called as an author (default: the end of --model)")
    parser.add_argument("--kind", choices=["folder", "hub"], default="folder", help="what --model is")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="processor threads (default: 1)")
    parser.add_argument(
        "--tag-threshold", type=float, default=0.35, help="how sure to be of a tag, 0 to 1 (default: 0.35)"
    )
    parser.add_argument("--allow-download", action="store_true", help="let a hub id be downloaded")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="pictures to look at")
    return parser


def main() -> int:
    """Parse the command line and run; return the exit status."""
    options = build_parser().parse_args()
    prepare_environment(options.threads)
    if options.allow_download:
        os.environ["HF_HUB_OFFLINE"] = "0"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    from training.labeler import program

    chosen = program.Options(
        task=options.task,
        model=options.model,
        name=options.name or Path(options.model).name,
        kind=ModelKind(options.kind),
        device=options.device,
        threads=options.threads,
        tag_threshold=options.tag_threshold,
        allow_download=options.allow_download,
    )
    if options.model not in {STARTER, NUDENET}:  # torch takes seconds, which the others need not wait for
        from training.pipelines.hardware import set_threads

        set_threads(options.threads)
    if not options.files:
        return program.serve(chosen, Channel.from_environment())
    try:
        labeler = program.load(chosen)
    except RequestFailed as failure:
        sys.stderr.write(f"{failure.detail}\n")
        return ExitCode.MODEL_MISSING
    for place, found in program.label_files(labeler, options.files):
        told = {"failed": str(found)} if isinstance(found, NothingFound) else asdict(found)
        sys.stdout.write(json.dumps({"file": str(options.files[place])} | told) + "\n")
    return ExitCode.FINISHED


if __name__ == "__main__":
    end_with(main)
