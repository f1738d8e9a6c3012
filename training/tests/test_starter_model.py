import numpy as np
import pytest
import torch

from training.starter import MODEL_DIR
from training.starter.drawings import held_out_prompts
from training.starter.evaluation import (
    GUIDANCE_SCALE,
    NUM_INFERENCE_STEPS,
    Accuracy,
    clean_drawings,
    generate,
    reconstruct,
)
from training.starter.judge import judge
from training.starter.publishing import MAX_SIZE_BYTES, NoModel, load, size_bytes


@pytest.fixture(scope="module")
def pipeline():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(MODEL_DIR)
    torch.set_num_threads(threads)


def test_the_committed_folder_is_small_and_complete():
    files = {path.relative_to(MODEL_DIR).as_posix() for path in MODEL_DIR.rglob("*") if path.is_file()}

    assert size_bytes(MODEL_DIR) <= MAX_SIZE_BYTES
    assert {
        "README.md",
        "model_index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    } <= files
    assert not {name for name in files if name.endswith((".bin", ".pt", ".ckpt", ".pkl"))}


def test_no_file_names_a_place_on_the_machine_that_made_it():
    for path in [*MODEL_DIR.rglob("*.json"), *MODEL_DIR.rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        assert "/tmp" not in text
        assert "/work" not in text
        assert "/root" not in text


def test_it_has_the_layout_of_the_real_models(pipeline):
    assert pipeline.vae_scale_factor == 8
    assert pipeline.vae.config.latent_channels == 4
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.safety_checker is None
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_latents_have_a_deviation_of_one(pipeline):
    pixels = pipeline.image_processor.preprocess([image for _, image in clean_drawings(64)])

    with torch.inference_mode():
        latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor

    assert latents.std().item() == pytest.approx(1, abs=0.05)


def test_the_autoencoder_gives_back_what_it_was_given(pipeline):
    accuracy = Accuracy.of(reconstruct(pipeline, clean_drawings(64)))

    assert accuracy.meets_bar()


def test_held_out_prompts_come_out_right(pipeline):
    pictures = generate(pipeline, held_out_prompts()[5::16])

    assert len(pictures) == 6
    assert all(all(judge(image).agrees_with(asked).values()) for asked, image in pictures)


def test_the_same_seed_gives_the_same_pixels(pipeline):
    def pixels(seed):
        generator = torch.Generator("cpu").manual_seed(seed)
        return np.asarray(
            pipeline(
                "a red heart on a white background",
                num_inference_steps=NUM_INFERENCE_STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=generator,
            ).images[0]
        )

    first = pixels(1)

    assert first.shape == (64, 64, 3)
    assert (first == pixels(1)).all()
    assert (first != pixels(2)).any()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(NoModel, match="holds no diffusers model"):
        load(tmp_path)
