"""The command line: have somebody else's trainer do what a folder says."""

import argparse
import logging
import sys
from pathlib import Path

from imagehub.jobs.protocol import Channel, end_with
from training.external.program import carry_out
from training.trainer.assignment import RunFolder


def main() -> int:
    """Parse the command line and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.external", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a run")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return carry_out(RunFolder(options.folder.resolve()), Channel.from_environment())


if __name__ == "__main__":
    end_with(main)
