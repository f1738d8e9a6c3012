"""Labelers that are networks of the transformers library: in a folder, or on the hub."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from training.labeler.findings import Finding, NothingFound, Said, Task
from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.pipelines.hardware import Hardware
from training.pipelines.references import ModelKind, ModelReference

LONGEST_CAPTION_TOKENS = 75

FIT = frozenset({"sfw", "safe", "normal", "neutral", "drawing", "drawings", "art", "general"})
UNFIT = frozenset(
    {
        "nsfw",
        "unsafe",
        "porn",
        "pornographic",
        "hentai",
        "sexy",
        "explicit",
        "nudity",
        "questionable",
        "sexual",
    }
)
"""What classifiers call what they tell apart. One with any other word is not trusted with the question."""


@dataclass(frozen=True)
class Thresholds:
    """How sure a network has to be."""

    tag: float


def load(
    task: Task, reference: ModelReference, name: str, hardware: Hardware, thresholds: Thresholds
) -> "Captioner | Classifier":
    """Load a network. Its weights are read from safetensors only, and no code that lies beside them is run.

    Raises:
        RequestFailed: it is not there (``model_missing``), cannot be loaded (``model_invalid``), does not fit
            (``out_of_memory``), or does not answer the question (``model_invalid``).
    """
    if reference.kind == ModelKind.FOLDER and not Path(reference.source).is_dir():
        raise RequestFailed(
            FailureCode.MODEL_MISSING, f"The model “{name}” is not on the machine that labels."
        )
    options: dict[str, Any] = {
        "local_files_only": not reference.allow_download,
        "trust_remote_code": False,
    }
    try:
        if task == "caption":
            return Captioner(reference.source, name, hardware, options)
        return Classifier(reference.source, name, hardware, options, task, thresholds)
    except RequestFailed:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise RequestFailed(
                FailureCode.OUT_OF_MEMORY, f"The model “{name}” does not fit into memory."
            ) from error
        is_missing = reference.kind == ModelKind.HUB and isinstance(error, OSError)
        code = FailureCode.MODEL_MISSING if is_missing else FailureCode.MODEL_INVALID
        what = "is not on the machine that labels" if is_missing else "cannot be loaded for this"
        raise RequestFailed(code, f"The model “{name}” {what}.") from error


class Captioner:
    """Describes pictures: BLIP, GIT, Florence and whatever else takes a picture and writes text."""

    def __init__(self, source: str, name: str, hardware: Hardware, options: Mapping[str, Any]) -> None:
        self.name = name
        self._hardware = hardware
        self._processor = AutoProcessor.from_pretrained(source, backend="pil", **options)
        model = AutoModelForImageTextToText.from_pretrained(
            source, use_safetensors=True, dtype=hardware.dtype, **options
        )
        self._model = model.to(hardware.device).eval()

    @torch.inference_mode()
    def label(self, pictures: Sequence[PIL.Image.Image]) -> list[Finding | NothingFound]:
        """Describe each picture, always with the same words."""
        inputs = self._processor(images=list(pictures), return_tensors="pt").to(
            self._hardware.device, dtype=self._hardware.dtype
        )
        tokens = self._model.generate(**inputs, max_new_tokens=LONGEST_CAPTION_TOKENS, do_sample=False)
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [
            Finding((Said(text),)) if (text := " ".join(found.split())) else NothingFound("It says nothing.")
            for found in texts
        ]


class Classifier:
    """Gives pictures labels of a fixed list: tags, or a judgement whether everybody may see them."""

    def __init__(
        self,
        source: str,
        name: str,
        hardware: Hardware,
        options: Mapping[str, Any],
        task: Task,
        thresholds: Thresholds,
    ) -> None:
        self.name = name
        self._hardware, self._task, self._thresholds = hardware, task, thresholds
        self._processor = AutoImageProcessor.from_pretrained(source, backend="pil", **options)
        model = AutoModelForImageClassification.from_pretrained(
            source, use_safetensors=True, dtype=hardware.dtype, **options
        )
        self._model = model.to(hardware.device).eval()
        self._labels = [str(model.config.id2label[place]) for place in range(model.config.num_labels)]
        self._is_exclusive = model.config.problem_type != "multi_label_classification"
        words = [label.strip().casefold() for label in self._labels]
        if task == "nsfw" and not (UNFIT.intersection(words) and FIT.union(UNFIT).issuperset(words)):
            raise RequestFailed(
                FailureCode.MODEL_INVALID,
                f"The labels of the model “{name}” do not say which pictures are unfit.",
            )
        self._unfit = [place for place, word in enumerate(words) if word in UNFIT]

    @torch.inference_mode()
    def label(self, pictures: Sequence[PIL.Image.Image]) -> list[Finding | NothingFound]:
        """Give each picture its labels, the surest first, or its score."""
        inputs = self._processor(images=list(pictures), return_tensors="pt").to(
            self._hardware.device, dtype=self._hardware.dtype
        )
        logits = self._model(**inputs).logits.float().cpu()
        shares = logits.softmax(-1) if self._is_exclusive else logits.sigmoid()
        return [self._finding(row) for row in shares.tolist()]

    def _finding(self, shares: list[float]) -> Finding | NothingFound:
        if not all(map(math.isfinite, shares)):  # min, max and comparisons would make something of it
            return NothingFound("The model gave a number that means nothing.")
        if self._task == "nsfw":
            unfit = [shares[place] for place in self._unfit]
            # Shares of one whole add up, give or take a rounding; of independent ones the highest counts.
            return Finding(unfit=min(1.0, sum(unfit)) if self._is_exclusive else max(unfit))
        likely = sorted(zip(shares, self._labels, strict=True), reverse=True)
        said = tuple(
            Said(label.replace("_", " "), share) for share, label in likely if share >= self._thresholds.tag
        )
        return Finding(said) if said else NothingFound("The model is not sure enough of any label.")
