"""Does an adapter fit a model? Layer by layer, where the files of both are at hand."""

from dataclasses import dataclass
from pathlib import Path

from training.weights.adapters import AdapterFacts, context_width
from training.weights.header import DamagedWeights, read_header
from training.weights.models import context_width_of_tensors, read_config

PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
MOST_FILES = 100
ORIGINAL_BLOCKS = ("input_blocks_", "middle_block_", "output_blocks_", "double_blocks_", "single_blocks_")
"""Layers by their names in the original code, which folders in the layout of diffusers do not have."""

Shape = tuple[int, int]
"""How many numbers a layer gives out, and how many it takes in."""


@dataclass(frozen=True)
class Layers:
    """The layers of a model that an adapter could change."""

    context_width: int | None
    """How wide the context is that its U-Net takes in; None: it has none, or it could not be told."""
    parts: dict[str, dict[str, Shape]]
    """The shapes of the layers of each part, by their names with underscores. A part that is not here was not read."""
    has_all_parts: bool = False
    """Whether a part that is not here is not there either."""


def layers_of_model(path: Path) -> Layers:
    """Return the layers of a base model, a folder or a file.

    Raises:
        FileNotFoundError: it is not there.
        DamagedWeights: a file of it cannot be read.
    """
    path = path.resolve(strict=True)  # operators link to models that other programs keep
    if path.is_file():
        return Layers(context_width_of_tensors(read_header(path)), {})
    parts = {part: _layers_of_part(path / part) for part in PARTS if (path / part).is_dir()}
    width = read_config(path / "unet" / "config.json").get("cross_attention_dim")
    return Layers(width if isinstance(width, int) else None, parts, has_all_parts=True)


def misfit(adapter: AdapterFacts, model: Layers) -> str:
    """Return why an adapter does not fit a model, as a sentence, or nothing."""
    width = context_width(adapter.layers)
    if width is not None and model.context_width is not None and width != model.context_width:
        return f"Its cross-attention takes a context of {width} numbers, that of the model one of {model.context_width}."
    for layer in adapter.layers:
        if layer.name.startswith(ORIGINAL_BLOCKS):
            continue
        layers = model.parts.get(layer.part)
        if layers is None:
            if model.has_all_parts:
                return f"It changes a {layer.part}, which the model does not have."
            continue
        shape = layers.get(_key(layer.name))
        if shape is None:
            return f"It changes layers of the {layer.part} that the model does not have, such as “{layer.name[:100]}”."
        if shape != (layer.outputs, layer.inputs):
            return (
                f"Its layer “{layer.name[:100]}” turns {layer.inputs} numbers into {layer.outputs}, that of the model "
                f"{shape[1]} into {shape[0]}."
            )
    return ""


def _layers_of_part(folder: Path) -> dict[str, Shape]:
    files = sorted(file for file in folder.iterdir() if file.suffix == ".safetensors")
    if len(files) > MOST_FILES:
        raise DamagedWeights(f"The {folder.name} of the model has more than {MOST_FILES} files.")
    return {
        _key(name.removesuffix(".weight")): (tensor.shape[0], tensor.shape[1])
        for file in files
        for name, tensor in read_header(file.resolve()).tensors.items()
        if name.endswith(".weight") and len(tensor.shape) in {2, 4}
    }


def _key(name: str) -> str:
    """Return what all spellings of a layer have in common. Later versions of transformers leave ``text_model`` out."""
    return name.replace(".", "_").removeprefix("text_model_")
