"""A training changes what it should, and nothing else."""

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from training.pipelines.adapters import load_adapter
from training.tests.trainer.rig import make_rig, small_recipe
from training.trainer import batches, chance


@pytest.fixture(scope="module")
def learned(tmp_path_factory, tiny_folders):
    """A training of sixty steps, and the weights of its base before."""
    recipe = small_recipe(
        steps=60,
        rank=8,
        alpha=8.0,
        learning_rate=1e-2,
        batch_size=4,
        target_modules="transformer",
        random_flip=False,
        validation_every=30,
        sample_every=60,
        sample_prompts=("a red ball",),
    )
    rig = make_rig(tmp_path_factory.mktemp("learned") / "run", tiny_folders["sd15"], recipe)
    return rig.train()


def test_a_fresh_adapter_changes_nothing(rig, monkeypatch):
    fresh = rig(name="fresh", steps=1, learning_rate=1e-12).train()
    monkeypatch.setattr("training.trainer.running.add_adapter", lambda parts, recipe: None)
    monkeypatch.setattr("training.trainer.running.Training.run", lambda training: training._validate())
    monkeypatch.setattr("training.trainer.running.Run._export", lambda run, training: None)
    monkeypatch.setattr(
        "training.trainer.stepping.make_optimizer",
        lambda parts, recipe: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0),
    )

    base = rig(name="base", steps=1).train()

    assert fresh.validation[0] == base.validation[0]


def test_it_learns(learned):
    assert learned.is_finished
    assert learned.validation[-1] < 0.9 * learned.validation[0]


def test_it_can_learn_one_picture_by_heart(rig, monkeypatch):
    monkeypatch.setattr(
        batches, "draw", lambda seed, number, shape, **options: chance.draw(seed, 0, shape, **options)
    )

    result = rig(
        pictures=1,
        steps=60,
        batch_size=1,
        rank=16,
        alpha=16.0,
        learning_rate=2e-2,
        random_flip=False,
        target_modules="transformer",
        validation_every=0,
    ).train()

    assert result.losses[-1] < 0.6 * result.losses[0]


def test_it_leaves_the_base_alone(learned):
    model = learned.training._model
    untouched = DiffusionPipeline.from_pretrained(model.pipeline.config._name_or_path, safety_checker=None)

    for name in ("unet", "vae", "text_encoder"):
        before = getattr(untouched, name).state_dict()
        after = {
            key.replace(".base_layer", ""): tensor
            for key, tensor in getattr(model.pipeline, name).state_dict().items()
            if "lora_" not in key
        }
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_its_file_draws_what_it_drew(learned):
    """The sample at the last step, and the exported file in a pipeline of its own: the same picture."""
    (sample,) = learned.of("sample")
    recipe = learned.run._recipe
    pipeline = DiffusionPipeline.from_pretrained(
        learned.training._model.pipeline.config._name_or_path, safety_checker=None
    )
    options = {
        "num_inference_steps": recipe.sample_steps,
        "guidance_scale": recipe.sample_guidance_scale,
        "width": 32,
        "height": 32,
    }

    def draw():
        generator = torch.Generator("cpu").manual_seed(recipe.sample_seed)
        return pipeline("a red ball", generator=generator, **options).images[0]

    base = draw()
    file = learned.folder.root / learned.finished["file"]
    load_adapter(pipeline, file, name="trained", label="trained")
    drawn = draw()

    with Image.open(learned.folder.root / sample["file"]) as preview:
        assert _largest_difference(preview, drawn) <= 1
    assert _largest_difference(base, drawn) > 10


def test_sdxl_learns(rig):
    result = rig(model="sdxl", steps=40, learning_rate=1e-2, rank=8, alpha=8.0, validation_every=40).train()

    assert result.validation[-1] < result.validation[0]


def test_a_model_that_predicts_velocity_learns(rig):
    result = rig(
        model="v",
        steps=40,
        learning_rate=1e-2,
        rank=8,
        alpha=8.0,
        batch_size=4,
        target_modules="transformer",
        min_snr_gamma=5.0,
        validation_every=40,
    ).train()

    assert result.validation[-1] < 0.95 * result.validation[0]


@pytest.mark.parametrize(("model", "encoders"), [("sd15", 1), ("sdxl", 2)])
def test_text_encoders_learn_too(rig, model, encoders):
    result = rig(model=model, steps=3, train_text_encoder=True, gradient_checkpointing=True).train()

    moved = {
        name.split(".")[0]
        for name, tensor in result.weights.items()
        if name.endswith("lora_B.weight") and tensor.any()
    }
    assert moved == {"unet", "text_encoder", "text_encoder_2"} - (
        {"text_encoder_2"} if encoders == 1 else set()
    )
    assert result.finished["encoded_captions"] == 0


def _largest_difference(one, other):
    pixels = [torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.int) for image in (one, other)]
    return int((pixels[0] - pixels[1]).abs().max())
