"""What the header of an exported adapter says of it, so that other programs show its trigger word and fit its model.

Three vocabularies stand side by side: ``ss_*`` and ``sshs_*`` of sd-scripts, which A1111, ComfyUI and their kin read;
``modelspec.*`` of ModelSpec 1.0.1 by Stability AI; and our own, ``imagehub.*``. All values are strings. Captions, other
people's names, and paths do not stand in it.
"""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from training.datasets.captions import names
from training.datasets.manifest import Manifest
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.checkpoint_files import MANIFEST, Checkpoint
from training.weights import Family
from training.weights.models import read_config

MODEL_SPEC = "1.0.1"
THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 75
STEM_BYTES = 80

ARCHITECTURES = {
    Family.SD1: "stable-diffusion-v1",
    Family.SD2: "stable-diffusion-v2-512",
    Family.SDXL: "stable-diffusion-xl-v1-base",
}
"""As ModelSpec spells them. Others stand there by our own names."""

VELOCITY = {Family.SD2: "stable-diffusion-v2-768-v"}
"""The same for those that have another name where they predict the velocity."""

BASE_VERSIONS = {Family.SD1: "sd_v1", Family.SD2: "sd_v2", Family.SDXL: "sdxl_base_v1-0"}
"""As sd-scripts spells them."""

_SAMPLE = re.compile(r"step-(\d{6,})-0\.png")


def describe(
    run: RunFolder, assignment: Assignment, manifest: Manifest, checkpoint: Checkpoint
) -> dict[str, str]:
    """Return the metadata of an adapter made of a checkpoint, but for the digests of its tensors."""
    prediction = _prediction_type(assignment, checkpoint)
    family = Family(assignment.architecture)
    finished_at = (checkpoint.folder / MANIFEST).stat().st_mtime
    return (
        _of_sd_scripts(assignment, manifest, checkpoint, family, prediction, finished_at)
        | _of_model_spec(assignment, family, prediction, finished_at)
        | _thumbnail(run, checkpoint.step)
        | {
            "format": "pt",
            "imagehub.run_id": assignment.run_id,
            "imagehub.step": str(checkpoint.step),
            "imagehub.config_sha256": assignment.recipe.digest(),
            "imagehub.dataset_sha256": manifest.digest(),
        }
        | ({"imagehub.trigger_word": assignment.trigger_word} if assignment.trigger_word else {})
    )


def file_stem(name: str) -> str:
    """Return what a file made from something with that name is called: letters, digits, dots and dashes.

    File systems count bytes (most take 255), and a letter has up to four of them.
    """
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    return stem.encode()[:STEM_BYTES].decode(errors="ignore") or "adapter"


def _of_sd_scripts(
    assignment: Assignment,
    manifest: Manifest,
    checkpoint: Checkpoint,
    family: Family,
    prediction: str,
    finished_at: float,
) -> dict[str, str]:
    recipe = assignment.recipe
    train, validation = manifest.of_role("train"), manifest.of_role("validation")
    stem = file_stem(assignment.name)
    is_v = prediction == "v_prediction"
    version = BASE_VERSIONS.get(family, str(family))
    buckets = Counter(entry.bucket for entry in train)
    values: dict[str, Any] = {
        "ss_v2": family == Family.SD2,
        "ss_base_model_version": f"{version}_v" if is_v and family in {Family.SD1, Family.SD2} else version,
        "ss_sd_model_name": base_name(assignment.model_name),
        "ss_network_module": "networks.lora",
        "ss_network_dim": recipe.rank,
        "ss_network_alpha": recipe.alpha,
        "ss_network_dropout": recipe.dropout,
        "ss_network_args": {},
        "ss_output_name": stem,
        "ss_training_started_at": checkpoint.progress.get("started_at"),
        "ss_training_finished_at": finished_at,
        "ss_steps": checkpoint.step,
        "ss_epoch": checkpoint.progress.get("epoch"),
        "ss_max_train_steps": recipe.steps,
        "ss_learning_rate": recipe.learning_rate,
        "ss_unet_lr": recipe.learning_rate,
        "ss_text_encoder_lr": (recipe.text_encoder_learning_rate or recipe.learning_rate)
        if recipe.train_text_encoder
        else None,
        "ss_optimizer": recipe.optimizer,
        "ss_lr_scheduler": recipe.lr_scheduler,
        "ss_lr_warmup_steps": recipe.warmup_steps,
        "ss_batch_size_per_device": recipe.batch_size,
        "ss_total_batch_size": recipe.effective_batch,
        "ss_gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "ss_gradient_checkpointing": recipe.gradient_checkpointing,
        "ss_max_grad_norm": recipe.max_grad_norm,
        "ss_mixed_precision": recipe.mixed_precision,
        "ss_seed": recipe.seed,
        "ss_min_snr_gamma": recipe.min_snr_gamma,
        "ss_noise_offset": recipe.noise_offset or None,
        "ss_loss_type": "l2",
        "ss_caption_dropout_rate": recipe.caption_dropout,
        "ss_random_crop": not recipe.center_crop,
        "ss_flip_aug": recipe.random_flip,
        "ss_resolution": f"({recipe.resolution}, {recipe.resolution})",
        "ss_num_train_images": sum(entry.repeats for entry in train),
        "ss_num_reg_images": 0,
        "ss_num_validation_images": len(validation),
        "ss_dataset_dirs": {stem: {"n_repeats": 1, "img_count": len(train)}},
        "ss_bucket_info": {
            "buckets": {
                str(number): {"resolution": list(bucket), "count": count}
                for number, (bucket, count) in enumerate(sorted(buckets.items()))
            }
        },
        "ss_tag_frequency": _tag_frequency(assignment, manifest, stem),
    }
    return {
        name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in values.items()
    }


def _of_model_spec(
    assignment: Assignment, family: Family, prediction: str, finished_at: float
) -> dict[str, str]:
    recipe = assignment.recipe
    names_of_families = ARCHITECTURES | (VELOCITY if prediction == "v_prediction" else {})
    values = {
        "sai_model_spec": MODEL_SPEC,
        "architecture": f"{names_of_families.get(family, family)}/lora",
        "implementation": "diffusers",
        "title": assignment.name,
        "description": assignment.description,
        "resolution": f"{recipe.resolution}x{recipe.resolution}",
        "date": datetime.fromtimestamp(finished_at, UTC).isoformat(timespec="seconds"),
        "trigger_phrase": assignment.trigger_word,
        "prediction_type": {"v_prediction": "v"}.get(prediction, prediction),
    }
    return {f"modelspec.{name}": value for name, value in values.items() if value}


def _tag_frequency(assignment: Assignment, manifest: Manifest, stem: str) -> dict[str, dict[str, int]]:
    """Return how many captions have the trigger word: what other programs show. The captions stay where they are."""
    word = assignment.trigger_word
    if not word:
        return {}
    count = sum(names(entry.caption, word) for entry in manifest.of_role("train"))
    return {stem: {word: count}} if count else {}


def _prediction_type(assignment: Assignment, checkpoint: Checkpoint) -> str:
    """Return what the base model predicts: the trainer has seen it. Of an older checkpoint, its folder may say it."""
    value = checkpoint.progress.get("prediction_type")
    if value is None:
        said = read_config(Path(assignment.model.source) / "scheduler" / "scheduler_config.json")
        value = said.get("prediction_type")
    return value if isinstance(value, str) and value.isidentifier() else ""


def _thumbnail(run: RunFolder, step: int) -> dict[str, str]:
    """Return the latest sample picture up to a step as a small data URL, or nothing where there is none."""
    found: dict[int, Path] = {}
    for path in run.samples.glob("step-*-0.png"):
        if (match := _SAMPLE.fullmatch(path.name)) and int(match[1]) <= step:
            found[int(match[1])] = path
    if not found:
        return {}
    try:
        with Image.open(found[max(found)]) as picture:
            small = picture.convert("RGB")
    except OSError:  # a picture that cannot be read is no reason to lose an adapter
        return {}
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"modelspec.thumbnail": f"data:image/jpeg;base64,{encoded}"}


def base_name(name: str) -> str:
    """Return a name without the folders in front of it: whose machine it was is nobody's business."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def config_of_diffusers(layers: Mapping[str, list[str]], *, rank: int, alpha: float) -> str:
    """Return what diffusers keeps in a header: how PEFT has to wrap the layers of each part of a pipeline.

    PEFT compares ends of names, so the layers of text encoders are told without the ``text_model`` that only some
    versions of transformers have in front.
    """
    said: dict[str, Any] = {}
    for part, of_part in layers.items():
        said |= {
            f"{part}.r": rank,
            f"{part}.lora_alpha": alpha,
            f"{part}.target_modules": sorted(name.removeprefix("text_model.") for name in of_part),
            f"{part}.peft_type": "LORA",
        }
    return json.dumps(said, sort_keys=True)
