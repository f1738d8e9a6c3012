"""Every parameter that is accepted changes something. A new one without an effect fails here."""

import hashlib
from typing import Any

import pytest

from albums.tests.factories import AlbumFactory
from imagehub.accounts.tests.factories import UserFactory
from training.recipe import Recipe
from training.services.datasets import snapshot
from training.tests.datasets.albums import FEW, caption, image
from training.tests.trainer.rig import Result, make_rig, small_recipe

NOT_TRIED = {"version"}
"""It has but one value."""

DATA_SET: dict[str, dict[str, Any]] = {
    "resolution": {"resolution": 32},
    "bucket_step": {"bucket_step": 40},
    "allow_upscaling": {"allow_upscaling": True, "resolution": 128},
    "repeats": {},  # by the id of the album, which the test knows
    "validation_share": {"validation_share": 0.5},
}
"""They decide which pictures are learned from, and how they are cut, so the data set is looked at."""

TRAINING: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (4, {}),
    "steps": (3, {}),
    "center_crop": (False, {"steps": 3}),  # one of the pictures is not square
    "random_flip": (True, {"random_flip": False}),
    "caption_dropout": (0.9, {}),
    "validation_every": (1, {}),
    "patience": (1, {"validation_every": 1, "steps": 4, "learning_rate": 0.9, "rank": 8, "alpha": 64.0}),
    "rank": (2, {}),
    "alpha": (8.0, {}),
    "dropout": (0.5, {}),
    "target_modules": ("transformer", {}),
    "train_text_encoder": (True, {}),
    "text_encoder_learning_rate": (0.5, {"train_text_encoder": True}),
    "optimizer": ("adafactor", {}),
    "learning_rate": (1e-2, {}),
    "weight_decay": (1.0, {"learning_rate": 0.1}),
    "lr_scheduler": ("cosine", {}),
    "warmup_steps": (2, {}),
    "lr_cycles": (2, {"lr_scheduler": "cosine_with_restarts"}),
    "batch_size": (1, {}),
    "gradient_accumulation_steps": (2, {}),
    "gradient_checkpointing": (True, {}),
    "mixed_precision": ("bf16", {}),
    "max_grad_norm": (1e-4, {"optimizer": "adafactor"}),
    "min_snr_gamma": (0.5, {}),
    "noise_offset": (0.5, {}),
    "checkpoint_every": (1, {}),
    "keep_checkpoints": (1, {"checkpoint_every": 1}),
    "sample_every": (1, {"sample_prompts": ("a ball",)}),
    "sample_prompts": (("a cube",), {"sample_prompts": ("a ball",), "sample_every": 2}),
    "sample_negative_prompt": ("a cube", {"sample_prompts": ("a ball",), "sample_every": 2}),
    "sample_steps": (3, {"sample_prompts": ("a ball",), "sample_every": 2}),
    "sample_guidance_scale": (3.0, {"sample_prompts": ("a ball",), "sample_every": 2}),
    "sample_width": (40, {"sample_prompts": ("a ball",), "sample_every": 2}),
    "sample_height": (40, {"sample_prompts": ("a ball",), "sample_every": 2}),
    "sample_seed": (1, {"sample_prompts": ("a ball",), "sample_every": 2}),
}
"""Another value than that of the small recipe, and what of the recipe has to be set for it to mean anything."""


def test_all_of_them_are_tried():
    assert NOT_TRIED | DATA_SET.keys() | TRAINING.keys() == set(Recipe.model_fields)


def seen(result: Result) -> dict[str, Any]:
    """Return all that anybody can see of a training, apart from how long it took."""
    return {
        "points": [point[:4] for point in result.points],
        "validation": [(event["step"], event["loss"]) for event in result.of("validation")],
        "weights": {name: tensor.tolist() for name, tensor in result.weights.items()},
        "samples": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in result.folder.samples.glob("*.png")
        },
        "checkpoints": sorted(path.name for path in result.folder.checkpoints.iterdir()),
        "frugal": result.training._model.unet.is_gradient_checkpointing,
    }


@pytest.fixture(scope="module")
def seen_of(tmp_path_factory, tiny_folders):
    """Train by a recipe, and return what is seen; once for all that are compared with it."""
    root, found = tmp_path_factory.mktemp("parameters"), {}

    def train(**options):
        recipe = small_recipe(**options)
        key = recipe.digest()
        if key not in found:
            rig = make_rig(root / str(len(found)), tiny_folders["sd15"], recipe)
            found[key] = seen(rig.train())
        return found[key]

    return train


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_it_changes_a_training(seen_of, name):
    value, needed = TRAINING[name]
    options = {"steps": 2, "validation_every": 2} | needed
    assert getattr(small_recipe(**options), name) != value

    assert seen_of(**options) != seen_of(**options | {name: value})


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(DATA_SET))
def test_it_changes_a_data_set(name, set_config):
    set_config(FEW)
    images = [image(number, size=(104, 64)) for number in range(8)]
    for number, one in enumerate(images):
        caption(one, f"picture {number}")
    album = AlbumFactory(images=images)
    changes = {"repeats": {str(album.pk): 3}} if name == "repeats" else DATA_SET[name]
    base = Recipe(resolution=64, bucket_step=8, validation_share=0.1)
    if len(changes) > 1:
        base = base.model_copy(update={key: value for key, value in changes.items() if key != name})
    owner = UserFactory()

    one = snapshot([album], base, owner)
    other = snapshot([album], base.model_copy(update=changes), owner)

    assert one.sha256 != other.sha256
