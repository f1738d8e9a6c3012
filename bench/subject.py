"""The model and the pictures that all benches of generation use: the same for us and for what we compare with."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.starter import MODEL_DIR

ROOT = Path(__file__).resolve().parent.parent
STEPS = 25
GUIDANCE_SCALE = 3.0
SIDE = 64

SUBJECTS = ("red heart", "blue star", "green circle", "yellow crescent", "purple square", "orange ring")
BACKGROUNDS = ("white", "black", "blue", "green")


@dataclass(frozen=True)
class Subject:
    """A model in diffusers layout, and what our database calls it."""

    folder: Path
    is_trained: bool

    @property
    def name(self) -> str:
        return "starter" if self.is_trained else "bench"

    @property
    def description(self) -> str:
        return "the starter model" if self.is_trained else "the starter model's shape with random weights"


def choose_subject(scratch: Path) -> Subject:
    """Return the committed starter model or, until there is one, its architecture with random weights."""
    if (MODEL_DIR / "model_index.json").is_file():
        return Subject(MODEL_DIR, is_trained=True)
    folder = scratch / "bench"
    if not (folder / "model_index.json").is_file():
        subprocess.run([sys.executable, "-m", "bench.random_model", str(folder)], cwd=ROOT, check=True)
    return Subject(folder, is_trained=False)


def pictures(count: int, *, first_seed: int) -> list[dict[str, Any]]:
    """Return that many prompts and seeds."""
    return [
        {
            "prompt": f"a {SUBJECTS[n % len(SUBJECTS)]} on a {BACKGROUNDS[n // 2 % len(BACKGROUNDS)]} background",
            "seed": first_seed + n,
        }
        for n in range(count)
    ]
