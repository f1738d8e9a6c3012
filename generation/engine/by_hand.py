"""One picture from a shell: the server itself, with a request from the command line and a person reading."""

import argparse
import io
import os
import sys
from pathlib import Path
from typing import Any

from generation.engine import starting
from imagehub.jobs.protocol import Channel, ExitCode, decode, encode
from training.pipelines.failures import FailureCode
from training.pipelines.references import ModelKind

EXIT_STATUS = {
    FailureCode.BAD_REQUEST: ExitCode.BAD_REQUEST,
    FailureCode.UNKNOWN_SCHEDULER: ExitCode.BAD_REQUEST,
    FailureCode.MODEL_MISSING: ExitCode.MODEL_MISSING,
    FailureCode.MODEL_INVALID: ExitCode.BAD_DATA,
    FailureCode.ADAPTER_MISSING: ExitCode.MODEL_MISSING,
    FailureCode.ADAPTER_INCOMPATIBLE: ExitCode.BAD_DATA,
    FailureCode.INIT_IMAGE_INVALID: ExitCode.BAD_DATA,
    FailureCode.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    FailureCode.NOT_A_NUMBER: ExitCode.NOT_A_NUMBER,
    FailureCode.DISK_FULL: os.EX_IOERR,
    FailureCode.STORAGE_ERROR: os.EX_IOERR,
    FailureCode.ENGINE_ERROR: ExitCode.BUG,
}


class Narrator(io.RawIOBase):
    """Where the events go: tells a person how it comes along, and remembers the exit status."""

    def __init__(self) -> None:
        self.status: int = ExitCode.BUG

    def writable(self) -> bool:
        return True

    def write(self, line: Any) -> int:
        event = decode(bytes(line)) or {}
        match event.get("event"):
            case "phase":
                self._say(f"{event['phase']} ...\n")
            case "step":
                self._say(
                    f"\rstep {event['step']}/{event['total']}" + "\n" * (event["step"] == event["total"])
                )
            case "failed":
                self.status = EXIT_STATUS[FailureCode(event["code"])]
                self._say(f"{event['traceback']}\n{event['detail']}\n")
            case "done":
                self.status = ExitCode.FINISHED
                seconds = ", ".join(f"{name} {value:.2f} s" for name, value in event["timings"].items())
                self._say(f"{seconds}\n")
                sys.stdout.write(f"{event['output']}\n")
        return len(line)

    def _say(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def make_one_picture(options: argparse.Namespace) -> int:
    """Make the picture that the options describe; return the exit status."""
    width, height = options.size
    request = {
        "type": "generate",
        "id": "by-hand",
        "model": {
            "source": options.model,
            "kind": _kind(options.model),
            "allow_download": options.allow_download,
        },
        "prompt": options.prompt,
        "negative_prompt": options.negative_prompt,
        "seed": options.seed,
        "steps": options.steps,
        "width": width,
        "height": height,
        "guidance_scale": options.guidance_scale,
        "scheduler": options.scheduler,
        "adapters": [_adapter(argument) for argument in options.adapter],
        "init_image": str(options.init_image.absolute()) if options.init_image else None,
        "strength": options.strength if options.init_image else None,
        "output": str(options.output.absolute()),
        "text": {},
    }
    narrator = Narrator()
    status = starting.serve(options, Channel(narrator, io.BytesIO(encode(request))))  # type: ignore[arg-type]
    return status or narrator.status


def _adapter(argument: str) -> dict[str, Any]:
    """Read "file.safetensors:0.8"; without a number the weight is 1."""
    file, _, weight = argument.rpartition(":")
    try:
        path, number = Path(file or weight), float(weight) if file else 1.0
    except ValueError:  # the colon belongs to the name
        path, number = Path(argument), 1.0
    return {"id": path.stem, "source": str(path.absolute()), "weight": number}


def _kind(model: str) -> ModelKind:
    if Path(model).suffix == ".safetensors":
        return ModelKind.FILE
    is_path = Path(model).is_dir() or model.startswith((".", "/", "~"))
    return ModelKind.FOLDER if is_path else ModelKind.HUB
