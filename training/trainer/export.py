"""Checkpoints to adapter files that other programs read. Loads no model.

Kohya's layout has the scale of each layer as a tensor ``alpha`` and no configuration of PEFT; that of diffusers has the
reverse. Both at once are refused by diffusers. Text encoders are called as they were before transformers 5, with
``text_model`` in front, which all programs know; that of SD 1 and 2 is ``lora_te``, those of SDXL ``lora_te1`` and
``lora_te2``.
"""

import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

from training.datasets.manifest import Manifest, ManifestDamaged
from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.checkpoint_files import CheckpointDamaged, folder_name, verify
from training.trainer.checkpoints import load_weights
from training.trainer.metadata import config_of_diffusers, describe, file_stem
from training.trainer.writing import naming_failures, sync
from training.weights import Family, Layout
from training.weights.header import LENGTH_BYTES, METADATA
from training.weights.layouts import ADAPTER_METADATA

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
"""What diffusers and InvokeAI look for in a folder."""

LEGACY_OFFSET, LEGACY_BYTES = 0x100000, 0x10000
"""A1111's first way to tell files apart looked at these bytes."""

_TENSOR = re.compile(r"(unet|text_encoder|text_encoder_2)\.(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class ExportedFile:
    """An adapter file that was written."""

    file: Path
    layout: Layout
    step: int
    sha256: str
    """Of the whole file."""
    size_bytes: int


def export_checkpoint(
    folder: RunFolder, step: int, *, layout: Layout = Layout.KOHYA, output: Path | None = None
) -> ExportedFile:
    """Write the adapter of a checkpoint as a file for other programs.

    Args:
        folder: of the run.
        step: of the checkpoint.
        layout: ``kohya``, in float16, which everything reads, or ``diffusers``, in float32 and so exactly as trained.
        output: where to write it; else under the name of the run in :attr:`RunFolder.export`.

    Raises:
        RequestFailed: there is no such checkpoint, or it or the folder is damaged (``bad_request``), a number in it
            is none (``not_a_number``), or the file cannot be written (``disk_full``, ``storage_error``).
    """
    assignment = Assignment.read(folder)
    try:
        manifest = Manifest.read(folder.manifest)
        checkpoint = verify(folder.checkpoints / folder_name(step))
    except ManifestDamaged as error:
        raise RequestFailed(FailureCode.BAD_REQUEST, str(error)) from error
    except CheckpointDamaged as error:
        raise RequestFailed(
            FailureCode.BAD_REQUEST, f"The checkpoint of step {step} cannot be used. {error}"
        ) from error
    weights = load_weights(checkpoint)
    metadata = describe(folder, assignment, manifest, checkpoint)
    rank, alpha = assignment.recipe.rank, assignment.recipe.alpha
    if layout == Layout.KOHYA:
        has_two = assignment.architecture == Family.SDXL or any(
            name.startswith("text_encoder_2.") for name in weights
        )
        tensors = to_kohya(_in_half(weights), alpha=alpha, has_two_encoders=has_two)
    else:
        tensors = to_diffusers(weights)
        layers: dict[str, list[str]] = defaultdict(list)
        for name in tensors:
            part, layer, factor = _split(name)
            if factor == "A":
                layers[part].append(layer)
        metadata[ADAPTER_METADATA] = config_of_diffusers(layers, rank=rank, alpha=alpha)
    _check_finite(tensors)
    target = output or _place(folder, assignment, step, layout)
    with naming_failures("the adapter"):
        _write(tensors, metadata, target)
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedFile(target, layout, step, digest, target.stat().st_size)


def to_kohya(
    weights: Mapping[str, torch.Tensor], *, alpha: float, has_two_encoders: bool
) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter by their names in Kohya's layout.

    Args:
        weights: by their names in a checkpoint, such as ``unet.….attn1.to_q.lora_A.weight``.
        alpha: what each change is scaled by, times the rank: the real one. The converter of diffusers writes the rank.
        has_two_encoders: whether the model is a Stable Diffusion XL, or like it.
    """
    prefixes = {
        "unet": "lora_unet",
        "text_encoder": "lora_te1" if has_two_encoders else "lora_te",
        "text_encoder_2": "lora_te2",
    }
    tensors = {}
    for name, tensor in weights.items():
        part, layer, factor = _split(name)
        key = f"{prefixes[part]}_{layer.replace('.', '_')}"
        tensors[f"{key}.{'lora_down' if factor == 'A' else 'lora_up'}.weight"] = tensor
        tensors[f"{key}.alpha"] = torch.tensor(alpha, dtype=tensor.dtype)
    return tensors


def to_diffusers(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter by their names in the layout of diffusers, from those in a checkpoint."""
    return {
        f"{part}.{layer}.lora_{factor}.weight": tensor
        for name, tensor in weights.items()
        for part, layer, factor in [_split(name)]
    }


def _split(name: str) -> tuple[str, str, str]:
    """Return the part of a pipeline that a tensor belongs to, its layer there, and whether it is factor A or B."""
    match = _TENSOR.fullmatch(name)
    if match is None:
        raise RequestFailed(FailureCode.BAD_REQUEST, "The checkpoint holds a tensor that no adapter has.")
    part, layer, factor = match.groups()
    if part != "unet" and not layer.startswith(("text_model.", "text_projection")):
        layer = f"text_model.{layer}"
    return part, layer, factor


def _in_half(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(torch.float16) for name, tensor in weights.items()}


def _check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise RequestFailed(
                FailureCode.NOT_A_NUMBER,
                f"The adapter holds numbers that are none, or too large for its file, in {name}.",
            )


def _place(folder: RunFolder, assignment: Assignment, step: int, layout: Layout) -> Path:
    stem = file_stem(assignment.name)
    if step < assignment.recipe.steps:
        stem = f"{stem}-step{step:08d}"
    if layout == Layout.DIFFUSERS:
        return folder.export / stem / DIFFUSERS_NAME
    return folder.export / f"{stem}.safetensors"


def _write(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str], target: Path) -> None:
    """Write a file that is whole or not there, and for the same content the same.

    safetensors writes metadata in another order each time, and the digests of the tensors are to stand in front of them.
    So it writes a first file without metadata, which is copied in pieces behind a header of ours: no second copy of the
    tensors is in memory.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        bare, partial = Path(folder) / "bare", Path(folder) / "whole"
        save_file(dict(tensors), bare)
        with bare.open("rb") as source, partial.open("wb") as file:
            places = json.loads(source.read(int.from_bytes(source.read(LENGTH_BYTES), "little")))
            start = source.tell()
            digests = _digests(source, start, places, metadata)
            file.write(_header(places, metadata | digests))
            source.seek(start)
            shutil.copyfileobj(source, file)
        sync(partial)
        partial.replace(target)
        sync(target.parent)


def _header(places: dict[str, Any], metadata: dict[str, str]) -> bytes:
    """Return all of a file that stands in front of the tensors, which begin at a multiple of eight bytes."""
    content = {METADATA: dict(sorted(metadata.items()))} | places
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _digests(
    source: BufferedReader, start: int, places: dict[str, Any], metadata: dict[str, str]
) -> dict[str, str]:
    """Return the digests by which other programs tell adapters apart, as sd-scripts takes them.

    Of the bytes behind the header; and, as A1111 once did, of 64 KiB in a file with nothing but ``ss_*`` in its header.
    """
    source.seek(start)
    of_tensors = hashlib.file_digest(source, "sha256").hexdigest()
    length = len(_header(places, {name: metadata[name] for name in metadata if name.startswith("ss_")}))
    source.seek(start + max(0, LEGACY_OFFSET - length))
    legacy = hashlib.sha256(source.read(LEGACY_BYTES)).hexdigest()[:8]
    return {
        "sshs_model_hash": of_tensors,
        "sshs_legacy_hash": legacy,
        "modelspec.hash_sha256": f"0x{of_tensors}",
    }
