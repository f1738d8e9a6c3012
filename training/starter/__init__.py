"""The starter model: a Stable Diffusion in miniature that this project trains on pictures it draws itself."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The committed weights, in diffusers layout."""
