"""The conversation with the guard: a model is loaded, then batches of pictures are asked about."""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL
import PIL.Image

from imagehub.jobs.protocol import Channel, ExitCode
from training.labeler.findings import NUDENET, STARTER, Finding, Labeler, NothingFound, Task, open_picture
from training.labeler.nudity import NudityDetector
from training.labeler.starter import StarterLabeler
from training.pipelines.failures import FailureCode, RequestFailed, is_out_of_memory
from training.pipelines.references import ModelKind, ModelReference

logger = logging.getLogger(__name__)

EXITS = {
    FailureCode.MODEL_MISSING: ExitCode.MODEL_MISSING,
    FailureCode.MODEL_INVALID: ExitCode.MODEL_MISSING,
    FailureCode.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
}


@dataclass(frozen=True)
class Options:
    """What a labeler is started with."""

    task: Task
    model: str
    """``starter``, ``nudenet``, a folder or a hub id."""
    name: str
    kind: ModelKind
    device: str
    threads: int
    tag_threshold: float
    allow_download: bool


def load(options: Options) -> Labeler:
    """Load the model.

    Raises:
        RequestFailed: it is not there, or cannot be used for this.
    """
    if options.model == STARTER:
        return StarterLabeler(options.task)
    if options.model == NUDENET:
        if options.task != "nsfw":
            raise RequestFailed(FailureCode.MODEL_INVALID, "nudenet only tells what is unfit for everybody.")
        return NudityDetector()
    # Imported late: torch takes seconds, which the others need not wait for.
    from training.labeler import networks
    from training.pipelines.hardware import choose_hardware

    reference = ModelReference(options.model, options.kind, options.allow_download)
    thresholds = networks.Thresholds(options.tag_threshold)
    return networks.load(options.task, reference, options.name, choose_hardware(options.device), thresholds)


def serve(options: Options, channel: Channel) -> int:
    """Load the model and answer requests until the guard is gone or asks to stop; return the exit status."""
    channel.emit("loading")
    try:
        labeler = load(options)
    except RequestFailed as failure:
        if failure.__cause__ is not None:
            logger.error("The model cannot be used", exc_info=failure.__cause__)
        channel.emit("error", code=failure.code, detail=failure.detail)
        return EXITS.get(failure.code, ExitCode.BAD_REQUEST)
    channel.emit("ready", model=labeler.name, versions=_versions())
    for request in channel.requests():
        match request.get("type"):
            case "stop":
                return ExitCode.STOPPED
            case "label":
                items = request.get("items", [])
                for place, found in label_files(labeler, [Path(item["path"]) for item in items]):
                    _tell(channel, items[place]["id"], found)
                channel.emit("batch", id=request.get("id"))
    return ExitCode.FINISHED


def label_files(labeler: Labeler, paths: Sequence[Path]) -> list[tuple[int, Finding | NothingFound]]:
    """Look at files; return what was found in each, by its place in the list."""
    found: dict[int, Finding | NothingFound] = {}
    pictures: dict[int, PIL.Image.Image] = {}
    for place, path in enumerate(paths):
        try:
            pictures[place] = open_picture(path)
        except NothingFound as error:
            found[place] = error
    if pictures:
        found |= zip(pictures, _look(labeler, list(pictures.values())), strict=True)
    return sorted(found.items(), key=lambda item: item[0])


def _look(labeler: Labeler, pictures: Sequence[PIL.Image.Image]) -> list[Finding | NothingFound]:
    """Ask about all at once, and about one by one if that goes wrong: one picture must not spoil the others."""
    try:
        return labeler.label(pictures)
    except Exception as error:
        logger.exception("A batch of %s failed", len(pictures))
        if len(pictures) == 1:
            is_memory = is_out_of_memory(error)
            return [NothingFound("Memory ran out." if is_memory else "The model failed at this picture.")]
    return [found for picture in pictures for found in _look(labeler, [picture])]


def _tell(channel: Channel, item: Any, found: Finding | NothingFound) -> None:
    if isinstance(found, NothingFound):
        channel.emit("failed", id=item, detail=str(found))
    else:
        channel.emit("labeled", id=item, **asdict(found))


def _versions() -> Mapping[str, str]:
    """Return the versions of what was loaded."""
    names = ("torch", "transformers", "nudenet", "onnxruntime", "PIL")
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    return {
        name: str(module.__version__) for name, module in loaded.items() if hasattr(module, "__version__")
    }
