"""Starts :mod:`play_trainer` as ``accelerate launch`` starts a trainer: passes no pipes on, and has a status of its own."""

import subprocess
import sys

if __name__ == "__main__":
    trainer = subprocess.run([sys.executable, "-m", "training.tests.programs.play_trainer", *sys.argv[1:]])
    sys.exit(1 if trainer.returncode else 0)
