"""One model from disk (or, when a request allows it, from the hub) to a pipeline ready to work."""

import contextlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
from diffusers import AutoPipelineForText2Image
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from huggingface_hub import snapshot_download
from safetensors import safe_open

from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.pipelines.hardware import Hardware
from training.pipelines.references import ModelKind, ModelReference

INDEX = "model_index.json"

SINGLE_FILE_CONFIGS = ["*.json", "**/*.json", "*.txt", "**/*.txt", "**/*.model"]
"""What a single file lacks: configurations and tokenizers, but no weights."""

TEXT_TO_IMAGE = {pipeline.__name__: pipeline for pipeline in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}


def check_presence(reference: ModelReference) -> None:
    """Look whether a local model is there at all, before anything else makes room for it.

    Raises:
        RequestFailed: it is not there (``model_missing``), or is no model we load (``model_invalid``).
    """
    path = Path(reference.source)
    if reference.kind == ModelKind.FOLDER:
        if not path.is_dir():
            raise _missing(reference)
        if not (path / INDEX).is_file():
            raise _invalid(reference, f"its folder has no {INDEX}, so it is not in diffusers layout")
    elif reference.kind == ModelKind.FILE:
        if path.suffix.lower() != ".safetensors":
            raise _invalid(reference, "only .safetensors files are loaded, because others can hold code")
        if not path.is_file():
            raise _missing(reference)


def size_on_disk(reference: ModelReference) -> int:
    """Return about how many bytes a local model will take; 0 for one of the hub, of which nobody knows before."""
    path = Path(reference.source)
    if reference.kind == ModelKind.FILE:
        return path.stat().st_size
    if reference.kind == ModelKind.FOLDER:
        return sum(weights.stat().st_size for weights in path.glob("*/*.safetensors"))
    return 0


def load_pipeline(
    reference: ModelReference, hardware: Hardware, *, autoencoder: torch.dtype | None = None
) -> Any:
    """Load a text-to-image pipeline onto the device.

    Args:
        reference: which weights.
        hardware: the device, and the number format of all parts.
        autoencoder: another number format for the autoencoder, into which its weights are read straight away.

    Raises:
        RequestFailed: the model is missing (``model_missing``), cannot be loaded (``model_invalid``)
            or does not fit (``out_of_memory``).
    """
    try:
        with _network(is_allowed=reference.allow_download):
            if reference.kind == ModelKind.FILE:
                pipeline = _load_file(reference, hardware.dtype, autoencoder)
            else:
                pipeline = _load_diffusers_layout(reference, hardware.dtype, autoencoder)
        pipeline = pipeline.to(hardware.device)
    except RequestFailed:
        raise
    except ImportError as error:
        raise _invalid(reference, "it needs a package that is not installed") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise RequestFailed(
                FailureCode.OUT_OF_MEMORY, f"The model “{reference.name}” does not fit into memory."
            ) from error
        if reference.kind == ModelKind.HUB and isinstance(error, OSError):
            raise _missing(reference) from error  # offline, unknown, or only partly downloaded
        raise _invalid(reference, f"loading it failed with {type(error).__name__}") from error
    if "callback_on_step_end" not in inspect.signature(pipeline.__call__).parameters:
        raise _invalid(reference, "its kind of pipeline cannot be stopped between steps")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load_diffusers_layout(
    reference: ModelReference, dtype: torch.dtype, autoencoder: torch.dtype | None
) -> Any:
    index = AutoPipelineForText2Image.load_config(
        reference.source, local_files_only=not reference.allow_download
    )
    return AutoPipelineForText2Image.from_pretrained(
        reference.source,
        dtype=dtype if autoencoder is None else {"default": dtype, "vae": autoencoder},
        use_safetensors=True,
        local_files_only=not reference.allow_download,
        variant=_variant(reference),
        **_without_extras(index.get("_class_name", ""), index),
    )


def _load_file(reference: ModelReference, dtype: torch.dtype, autoencoder: torch.dtype | None) -> Any:
    config = _config_for_file(reference)
    index = json.loads((config / INDEX).read_text())
    class_name = index["_class_name"]
    pipeline_class = TEXT_TO_IMAGE.get(class_name)
    if pipeline_class is None:
        raise _invalid(reference, f"a {class_name} does not turn text into pictures")
    pipeline = pipeline_class.from_single_file(
        reference.source,
        config=str(config),
        dtype=autoencoder or dtype,  # of a single file all parts are read into one format
        local_files_only=True,
        **_without_extras(class_name, index),
    )
    if autoencoder not in (None, dtype):
        for name, part in pipeline.components.items():
            if isinstance(part, torch.nn.Module) and name != "vae":
                part.to(dtype)
    return pipeline


def _config_for_file(reference: ModelReference) -> Path:
    """Return the folder that says what is in a single file.

    A folder of the same name beside the file comes first, so that machines without a network can
    load any model; then the hub's configuration of the base model that the tensors' shapes tell.
    """
    beside = Path(reference.source).with_suffix("")
    if (beside / INDEX).is_file():
        return beside
    repository = fetch_diffusers_config(_tensor_shapes(reference))["pretrained_model_name_or_path"]
    try:
        # Asked here, because from_single_file goes online when told not to but finding nothing.
        return Path(
            snapshot_download(
                repository,
                allow_patterns=SINGLE_FILE_CONFIGS,
                local_files_only=not reference.allow_download,
            )
        )
    except OSError as error:
        raise RequestFailed(
            FailureCode.MODEL_MISSING,
            f"The file “{reference.name}” needs the configuration of {repository}, which is not on this "
            "machine; put it into a folder of the same name beside the file, or allow downloads.",
        ) from error


def _tensor_shapes(reference: ModelReference) -> dict[str, torch.Tensor]:
    """Return the names and shapes in a file as tensors without content."""
    with safe_open(reference.source, framework="pt") as file:
        return {
            name: torch.empty(file.get_slice(name).get_shape(), device="meta")
            for name in file.keys()  # noqa: SIM118
        }


def _variant(reference: ModelReference) -> str | None:
    """Return "fp16" for a folder that holds its weights in that variant only."""
    if reference.kind != ModelKind.FOLDER:
        return None
    weights = [path.name for path in Path(reference.source).glob("*/*.safetensors")]
    return "fp16" if weights and all(".fp16" in name for name in weights) else None


def _without_extras(class_name: str, index: dict[str, Any]) -> dict[str, Any]:
    """Return what leaves out the safety checker and the watermark, where a pipeline has them."""
    extras: dict[str, Any] = {}
    if "safety_checker" in index:
        extras |= {"safety_checker": None, "requires_safety_checker": False}
    if class_name.startswith("StableDiffusionXL"):
        extras["add_watermarker"] = False
    return extras


@contextlib.contextmanager
def _network(*, is_allowed: bool) -> Iterator[None]:
    """Let the hub's client go online for as long as one load takes."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = not is_allowed
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _missing(reference: ModelReference) -> RequestFailed:
    return RequestFailed(FailureCode.MODEL_MISSING, f"The model “{reference.name}” is not on this machine.")


def _invalid(reference: ModelReference, reason: str) -> RequestFailed:
    return RequestFailed(FailureCode.MODEL_INVALID, f"The model “{reference.name}” cannot be used: {reason}.")
