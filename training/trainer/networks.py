"""The adapter of a training: which layers it changes, how it starts, and its weights by name."""

import itertools
from collections.abc import Iterable, Mapping

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from torch import nn

from training.pipelines.failures import FailureCode, RequestFailed
from training.recipe import Recipe
from training.trainer.chance import Purpose, torch_seed

NAME = "default"

DENOISER = "unet"

ATTENTION = {
    DENOISER: ("to_q", "to_k", "to_v", "to_out.0"),
    "text": ("q_proj", "k_proj", "v_proj", "out_proj"),
}
"""How the projections of an attention are called in the denoiser and in the text encoders of CLIP."""

BLOCKS = {DENOISER: ("Transformer2DModel",), "text": ("CLIPAttention", "CLIPMLP")}
"""The classes below which ``transformer`` takes every layer, as sd-scripts chooses them."""


def layer_names(part: str, module: nn.Module, targets: str | tuple[str, ...]) -> list[str]:
    """Return the layers of a part of a model that an adapter changes, in the order of the part.

    Args:
        part: its name in the pipeline: ``unet``, ``text_encoder``, ``text_encoder_2``.
        module: the part itself.
        targets: ``attention``, ``transformer``, or the endings of the names of layers.
    """
    family = DENOISER if part == DENOISER else "text"
    if isinstance(targets, str):
        inside = [
            f"{path}." for path, block in module.named_modules() if type(block).__name__ in BLOCKS[family]
        ]
        names = [name for name in _layers(module) if name.startswith(tuple(inside))]
        return names if targets == "transformer" else _ending(names, ATTENTION[family])
    return _ending(_layers(module), targets)


def trained(parts: Mapping[str, nn.Module], recipe: Recipe) -> dict[str, nn.Module]:
    """Return those of the parts of a model that a recipe trains."""
    return {part: module for part, module in parts.items() if part == DENOISER or recipe.train_text_encoder}


def add_adapter(parts: Mapping[str, nn.Module], recipe: Recipe) -> None:
    """Put a fresh adapter into the parts of a model that are to be trained. It changes nothing yet.

    Its weights are float32, whatever the format of the model. The same seed gives the same weights.

    Raises:
        RequestFailed: the recipe names layers that are not there (``bad_request``).
    """
    chosen = {part: layer_names(part, module, recipe.target_modules) for part, module in parts.items()}
    if not isinstance(recipe.target_modules, str):
        found = list(itertools.chain.from_iterable(chosen.values()))
        for ending in recipe.target_modules:
            if not _ending(found, (ending,)):
                raise _no_layers(f"no layer of the model is called “{ending}”")
    for part, names in chosen.items():
        if not names:
            raise _no_layers(f"none of them is in the {part} of the model")
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(Purpose.WEIGHTS, recipe.seed))
        for part, module in parts.items():
            config = LoraConfig(
                r=recipe.rank,
                lora_alpha=recipe.alpha,  # type: ignore[arg-type]  # any number will do
                lora_dropout=recipe.dropout,
                target_modules=chosen[part],
                bias="none",
            )
            inject_adapter_in_model(config, module, NAME)
    for weight in trainable(parts.values()):
        weight.data = weight.data.float()


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Return the weights of some modules that are trained, in their order."""
    return [weight for module in modules for weight in module.parameters() if weight.requires_grad]


def adapter_weights(parts: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return the weights of the adapter by name: the part, and behind that as PEFT calls them. They are not copied."""
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in get_peft_model_state_dict(module, adapter_name=NAME).items()
    }


@torch.no_grad()
def load_adapter_weights(parts: Mapping[str, nn.Module], weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights into the adapter that is there.

    Raises:
        RequestFailed: they belong to another one (``checkpoint_mismatch``).
    """
    there = adapter_weights(parts)
    if {name: tensor.shape for name, tensor in there.items()} != {
        name: tensor.shape for name, tensor in weights.items()
    }:
        raise RequestFailed(
            FailureCode.CHECKPOINT_MISMATCH, "The checkpoint holds an adapter of other layers or sizes."
        )
    for name, tensor in there.items():
        tensor.copy_(weights[name])


def _layers(module: nn.Module) -> list[str]:
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    ]


def _ending(names: list[str], endings: tuple[str, ...]) -> list[str]:
    return [
        name for name in names if any(name == ending or name.endswith(f".{ending}") for ending in endings)
    ]


def _no_layers(reason: str) -> RequestFailed:
    return RequestFailed(FailureCode.BAD_REQUEST, f"“recipe.target_modules”: {reason}.")
