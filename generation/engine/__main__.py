"""The command line: serve a guard over its pipes, or make one picture by hand."""

import argparse
import logging
import sys
from pathlib import Path

from imagehub.jobs.protocol import end_with
from training.pipelines.environment import prepare_environment

DESCRIPTION = """\
Load a diffusers model once and make pictures with it. Without --prompt the engine reads requests as JSON
lines from its request pipe (by hand: standard input) and answers with events on its event pipe (by hand:
standard output). With --prompt it makes one picture and ends.
"""


def size(text: str) -> tuple[int, int]:
    """Read "512x768" as a width and a height in pixels."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m generation.engine", description=DESCRIPTION)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="processor threads (default: 1)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="where to compute (default: the best there is)",
    )
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "float16", "bfloat16"],
        default="auto",
        help="precision (default: float32 on a CPU, float16 elsewhere)",
    )
    parser.add_argument(
        "--models", type=int, metavar="N", help="models to keep in memory (default: 1 on a GPU, 2 on a CPU)"
    )
    parser.add_argument(
        "--model-memory",
        type=int,
        metavar="BYTES",
        help="what models may take together (default: half of the memory of the device)",
    )
    parser.add_argument(
        "--adapters", type=int, default=8, metavar="N", help="adapters to keep with each model (default: 8)"
    )
    parser.add_argument(
        "--adapter-memory",
        type=int,
        default=1 << 30,
        metavar="BYTES",
        help="what the adapters of one model may take (default: 1 GiB)",
    )
    one = parser.add_argument_group("one picture by hand")
    one.add_argument("--prompt", help="what to draw")
    one.add_argument("--negative-prompt", default="", help="what not to draw")
    one.add_argument("--model", help="folder in diffusers layout, .safetensors file, or hub id")
    one.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="FILE.safetensors[:WEIGHT]",
        help="LoRA adapter, and how strongly it acts (default: 1); may be given several times",
    )
    one.add_argument("--init-image", type=Path, metavar="FILE", help="picture to start from")
    one.add_argument(
        "--strength", type=float, default=0.8, help="how much of that is made anew, 0 to 1 (default: 0.8)"
    )
    one.add_argument("--allow-download", action="store_true", help="let a hub id be downloaded")
    one.add_argument("--output", type=Path, metavar="FILE.png", help="where to write the picture")
    one.add_argument("--seed", type=int, default=0, help="the same seed gives the same picture (default: 0)")
    one.add_argument("--steps", type=int, default=25, help="denoising steps (default: 25)")
    one.add_argument("--size", type=size, default=(512, 512), metavar="WxH", help="pixels (default: 512x512)")
    one.add_argument(
        "--guidance-scale", type=float, default=7.5, help="how closely to follow the prompt (default: 7.5)"
    )
    one.add_argument("--scheduler", help="default: the model's own")
    return parser


def main() -> int:
    """Parse the command line and run; return the exit status."""
    parser = build_parser()
    options = parser.parse_args()
    if options.threads < 1 or (options.models is not None and options.models < 1) or options.adapters < 1:
        parser.error("--threads, --models and --adapters must be at least 1")
    if options.prompt is not None and not (options.model and options.output):
        parser.error("--prompt needs --model and --output")
    prepare_environment(options.threads)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")

    # Imported late: torch takes seconds, and --help or a mistyped option should not wait for it.
    from generation.engine import by_hand, starting

    if options.prompt is not None:
        return by_hand.make_one_picture(options)
    return starting.serve(options)


if __name__ == "__main__":
    end_with(main)
