"""LoRA adapters: files in, and out of a pipeline again without a trace.

diffusers loads them. What is done here besides: the scale ``alpha / rank`` of each layer is multiplied into its
weights before, because diffusers forgets that of text encoders and of PEFT metadata on the way; everything the file
holds must arrive; and whatever is refused or removed leaves no wrapper behind, so that the base computes exactly
what it did before. Nothing is ever fused into the base, which would leave rounding errors there.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open

from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.weights.alphas import Alphas

KOHYA_PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")

PEFT_PREFIX = "base_model.model."
"""What PEFT itself puts before the name of a layer when it saves."""

LAYER = re.compile(
    r"(?P<module>.+?)[._](?P<kind>lora_down|lora_up|lora\.down|lora\.up|lora_A|lora_B|lora_linear_layer\.down|"
    r"lora_linear_layer\.up)(?:\.default)?\.weight"
)
"""The spellings of a pair of matrices: kohya's, those of old and new diffusers, and PEFT's."""

DOWN = ("down", "A")


def load_adapter(pipeline: Any, path: Path, *, name: str, label: str) -> int:
    """Load an adapter file under a name of its own; return how many bytes its weights take. It is active then.

    Args:
        pipeline: a text-to-image pipeline of diffusers.
        path: the .safetensors file.
        name: what the pipeline shall call it: not yet used, and part of no other name.
        label: what to call it in errors that its owner reads.

    Raises:
        RequestFailed: there is no such file (``adapter_missing``), or it does not fit the model or changes nothing
            (``adapter_incompatible``); the pipeline is as it was.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise _incompatible(label, "this kind of model takes no adapters")
    tensors = _read(path, label)
    pairs = sum(is_down(key) for key in tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # PEFT warns of every second adapter, which is just what is wanted here
            pipeline.load_lora_weights(_for_pipeline(tensors, pipeline), adapter_name=name)
        layers = [layer for layer in adapter_layers(pipeline) if name in layer.lora_A]
        if len(layers) != pairs:
            raise _incompatible(label, f"the model has {len(layers)} of the {pairs} layers it changes")
        if not any(layer.lora_B[name].weight.any() for layer in layers):
            raise _incompatible(label, "it changes nothing")
        return sum(_size_bytes(layer, name) for layer in layers)
    except Exception as error:
        remove_adapter(pipeline, name)
        if isinstance(error, RequestFailed) or is_out_of_memory(error):
            raise
        raise _incompatible(label, _reason(error)) from error


def remove_adapter(pipeline: Any, name: str) -> None:
    """Take an adapter out of a pipeline, and with it every wrapper that holds no other one. Harmless when it is not there."""
    for component in adaptable(pipeline):
        for path, layer in list(component.named_modules()):
            if not isinstance(layer, BaseTunerLayer):
                continue
            if others := _held(layer) - {name}:
                layer.set_adapter(sorted(others.intersection(layer.active_adapters)))
                layer.delete_adapter(name)
            else:
                parent, _, child = path.rpartition(".")
                setattr(component.get_submodule(parent), child, layer.get_base_layer())
        configurations = getattr(component, "peft_config", None)
        if configurations is not None:
            configurations.pop(name, None)
            if not configurations:
                del component.peft_config
                component._hf_peft_config_loaded = False  # type: ignore[assignment]


def activate(pipeline: Any, weights: Mapping[str, float]) -> None:
    """Let these adapters, and no others, act with these weights. Without any, the base computes what it always did."""
    names = list(weights)
    for layer in adapter_layers(pipeline):
        layer.enable_adapters(bool(names))
        here = [name for name in names if name in layer.lora_A]
        layer.set_adapter(here)
        for name in here:
            layer.set_scale(name, weights[name])


def touches_text(pipeline: Any, name: str) -> bool:
    """Tell whether an adapter changes a text encoder, and with it what the model reads in a prompt."""
    return any(
        name in getattr(component, "peft_config", {})
        for key, component in pipeline.components.items()
        if key.startswith("text_encoder") and component is not None
    )


def adaptable(pipeline: Any) -> list[torch.nn.Module]:
    """Return the parts of a pipeline that adapters change."""
    names = getattr(pipeline, "_lora_loadable_modules", [])
    return [part for name in names if (part := getattr(pipeline, name, None)) is not None]


def adapter_layers(pipeline: Any) -> Iterator[Any]:
    """Yield the layers that an adapter wraps."""
    for component in adaptable(pipeline):
        for module in component.modules():
            if isinstance(module, BaseTunerLayer):
                yield module


def is_down(key: str) -> bool:
    """Tell whether a tensor of a file is the first of a pair of matrices, whose rows are the rank."""
    match = LAYER.fullmatch(key)
    return match is not None and match["kind"].endswith(DOWN)


def _held(layer: Any) -> set[str]:
    return set(layer.lora_A) | set(layer.lora_embedding_A)


def _size_bytes(layer: Any, name: str) -> int:
    return sum(tensor.nbytes for part in (layer.lora_A, layer.lora_B) for tensor in part[name].parameters())


def _read(path: Path, label: str) -> dict[str, torch.Tensor]:
    """Return the pairs of matrices of a file, each scaled as its alpha says, which is left out.

    Raises:
        RequestFailed: it is not there, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise RequestFailed(
            FailureCode.ADAPTER_MISSING, f"The file of the adapter “{label}” is not on this machine."
        ) from None
    except (SafetensorError, OSError) as error:
        raise _incompatible(label, "its file cannot be read") from error
    pairs: dict[str, dict[str, str]] = {}
    alphas = {}
    for key, tensor in tensors.items():
        if match := LAYER.fullmatch(key):
            side = "down" if match["kind"].endswith(DOWN) else "up"
            pairs.setdefault(match["module"], {})[side] = key
        elif key.endswith(".alpha") and tensor.numel() == 1:
            alphas[key.removesuffix(".alpha")] = float(tensor)
        else:
            raise _incompatible(label, f"it is no plain LoRA: it holds a “{key.rpartition('.')[2][:40]}”")
    if not pairs:
        raise _incompatible(label, "it holds no layers")
    if lone := alphas.keys() - pairs.keys():
        raise _incompatible(label, f"{len(lone)} of its layers are incomplete")
    said = _Metadata(metadata)
    result = {}
    for module, keys in pairs.items():
        if len(keys) < 2:
            raise _incompatible(label, "some of its layers are incomplete")
        down, up = tensors[keys["down"]], tensors[keys["up"]]
        rank = down.shape[0]
        scale = alphas[module] / rank if module in alphas else said.scale(module, rank)
        if not math.isfinite(scale):
            raise _incompatible(label, "its alpha is no number")
        result[keys["down"]] = down
        result[keys["up"]] = up if scale == 1 else (up.float() * scale).to(up.dtype)
    return result


class _Metadata:
    """What diffusers writes into the header of an adapter: for each part of the model, the configuration of PEFT."""

    KEY = "lora_adapter_metadata"

    def __init__(self, metadata: Mapping[str, str]) -> None:
        try:
            values = json.loads(metadata.get(self.KEY, "{}"))
        except ValueError:
            values = {}
        self._values = values if isinstance(values, dict) else {}
        self._alphas = Alphas(self._values)

    def scale(self, module: str, rank: int) -> float:
        """Return alpha over rank of a layer; 1 where nothing is said, as diffusers and PEFT have it."""
        part, _, layer = module.removeprefix(PEFT_PREFIX).partition(".")
        alpha = self._alphas.of(part, layer)
        if alpha is None:
            alpha = rank
        if not isinstance(alpha, int | float):
            return 1.0
        root = math.sqrt(rank) if self._values.get(f"{part}.use_rslora") is True else rank
        return alpha / root


def _for_pipeline(tensors: dict[str, torch.Tensor], pipeline: Any) -> dict[str, torch.Tensor]:
    """Return the tensors in the number format of the pipeline, under names that it looks for."""
    dtype = pipeline.dtype
    parts = tuple(f"{name}." for name in pipeline._lora_loadable_modules)
    denoiser = "unet" if getattr(pipeline, "unet", None) is not None else "transformer"
    result = {}
    for key, tensor in tensors.items():
        bare = key.removeprefix(PEFT_PREFIX).replace(".default.weight", ".weight")
        if not bare.startswith((*KOHYA_PREFIXES, *parts)) and key != bare:
            bare = f"{denoiser}.{bare}"  # PEFT saved the denoiser alone, and does not say so
        result[bare] = tensor.to(dtype).contiguous()
    return result


def _reason(error: Exception) -> str:
    text = str(error)
    if "size mismatch" in text or "shape" in text:
        return "its layers have other sizes than those of the model"
    if "not found in the base model" in text:
        return "the model has none of the layers it changes"
    return f"loading it failed with {type(error).__name__}"


def _incompatible(label: str, reason: str) -> RequestFailed:
    return RequestFailed(
        FailureCode.ADAPTER_INCOMPATIBLE, f"The adapter “{label}” cannot be used with this model: {reason}."
    )
