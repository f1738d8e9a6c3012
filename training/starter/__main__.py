"""`python -m training.starter`: what `manage.py train_starter_model` does, without Django."""

import argparse
import sys

from training.starter.cli import OutputNeeded, add_options, run
from training.starter.publishing import ModelTooLarge, NoModel
from training.starter.trainer import OtherRecipe


def main() -> int:
    """Return 0 when the model meets the quality bar, 1 when it does not or could not be made."""
    parser = argparse.ArgumentParser(prog="python -m training.starter", description=__doc__)
    add_options(parser)
    options = parser.parse_args()
    try:
        meets_bar = run(options, lambda line: sys.stdout.write(f"{line}\n") and sys.stdout.flush())
    except (ModelTooLarge, NoModel, OtherRecipe, OutputNeeded) as refusal:
        parser.exit(1, f"{refusal}\n")
    return 0 if meets_bar or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
