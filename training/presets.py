"""Starting points for recipes, by what an adapter is to learn. Clients send what they took from one as ``config``."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "person": {
        "steps": 1500,
        "rank": 16,
        "alpha": 16.0,
        "learning_rate": 1e-4,
        "lr_scheduler": "cosine",
        "warmup_steps": 50,
        "min_snr_gamma": 5.0,
        "caption_dropout": 0.05,
        "random_flip": False,
    },
    "style": {
        "steps": 2000,
        "rank": 32,
        "alpha": 16.0,
        "target_modules": "transformer",
        "learning_rate": 1e-4,
        "lr_scheduler": "cosine",
        "warmup_steps": 100,
        "min_snr_gamma": 5.0,
        "noise_offset": 0.03,
        "caption_dropout": 0.1,
    },
    "concept": {
        "steps": 1200,
        "rank": 8,
        "alpha": 8.0,
        "learning_rate": 2e-4,
        "lr_scheduler": "constant",
        "warmup_steps": 50,
        "caption_dropout": 0.05,
    },
}
"""A face is not symmetric, so a person is not flipped. A style sits in all layers, a thing mostly in the attention."""
