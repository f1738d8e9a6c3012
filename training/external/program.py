"""The program that starts somebody else's trainer, tells our guard how it fares, and looks at what came out of it.

What it prints is read for progress and passed on, into the run log. It runs in our process group, so that the guard's last
resort meets it, too. It cannot go on from where it was: whoever stops it starts anew.
"""

import hashlib
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BufferedReader
from typing import cast

from imagehub.jobs.protocol import Channel, ChildExit, ExitCode
from training.datasets.manifest import Manifest, ManifestDamaged
from training.external.kohya_folder import write_dataset
from training.external.order import Order
from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer.alone import alone_in
from training.trainer.assignment import Assignment, RunFolder
from training.weights import WeightsRefused, read_header, recognise_adapter
from training.weights.adapters import SCALARS

SECONDS_BETWEEN_EVENTS = 0.5
LONGEST_LINE = 8 * 1024
CHUNK_BYTES = 64 * 1024

EXIT_CODES = {
    FailureCode.DATASET_INVALID: ExitCode.BAD_DATA,
    FailureCode.DISK_FULL: ExitCode.STORAGE,
    FailureCode.FOLDER_BUSY: ExitCode.BUSY,
    FailureCode.STORAGE_ERROR: ExitCode.STORAGE,
    FailureCode.TRAINER_ERROR: ExitCode.BUG,
}
"""All others: nothing would be different the next time."""


def carry_out(folder: RunFolder, channel: Channel) -> ExitCode:
    """Have the trainer do what a folder says; return the exit status."""
    try:
        with channel.alive(), alone_in(folder, should_stop=lambda: False):
            return _Training(folder, channel).run()
    except RequestFailed as failure:
        channel.emit("error", code=failure.code, detail=failure.detail)
        return EXIT_CODES.get(failure.code, ExitCode.BAD_REQUEST)


class _Training:
    """One run of it."""

    def __init__(self, folder: RunFolder, channel: Channel) -> None:
        self._folder, self._channel = folder, channel
        self._order = Order.read(folder)
        self._assignment = Assignment.read(folder)
        self._dataset, self._output = (
            folder.root / "external" / "dataset",
            folder.root / "external" / "output",
        )
        self._progress = re.compile(self._order.progress)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = threading.Event()
        self._started = time.monotonic()
        self._step, self._total = 0, self._assignment.recipe.steps
        self._loss: float | None = None
        self._told_at = float("-inf")

    def run(self) -> ExitCode:
        """Prepare, start, follow, and look at the result."""
        arguments = self._order.arguments(self._assignment, dataset=self._dataset, output=self._output)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        threading.Thread(target=self._listen, name="requests", daemon=True).start()
        self._tell("phase", phase="load", done=0, total=1)
        try:
            manifest = Manifest.read(self._folder.manifest)
        except ManifestDamaged as error:
            raise RequestFailed(FailureCode.DATASET_INVALID, str(error)) from error
        write_dataset(
            manifest,
            self._folder.images,
            self._dataset,
            name=self._assignment.trigger_word or self._assignment.name,
        )
        shutil.rmtree(self._output, ignore_errors=True)
        self._output.mkdir(parents=True)
        ended = self._follow(arguments)
        if self._is_stopped.is_set():
            self._tell("stopped", step=self._step, saved=False)
            return ExitCode.INTERRUPTED
        if ended.code != ExitCode.FINISHED:
            raise _failed(ended)
        self._tell_result()
        shutil.rmtree(self._dataset, ignore_errors=True)
        return ExitCode.FINISHED

    def _follow(self, arguments: list[str]) -> ChildExit:
        """Start the trainer and read what it prints until it ends."""
        try:
            self._process = subprocess.Popen(
                arguments,
                cwd=self._output,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RequestFailed(
                FailureCode.BAD_REQUEST, f"The external trainer cannot be started: {reason}."
            ) from error
        self._tell(
            "started",
            pid=self._process.pid,
            versions={},
            device="",
            dtype="",
            resumed_from=None,
            trainable_parameters=None,
        )
        if self._is_stopped.is_set():  # asked for while it was being started
            self._process.terminate()
        for line in _lines(self._process):
            self._read(line)
        if self._step:
            self._tell_step()
        return ChildExit(self._process.wait())

    def _read(self, line: str) -> None:
        """Note what a line tells of the progress, if it does, and tell of it twice a second."""
        match = self._progress.search(line)
        if match is None:
            return
        try:
            step, total, loss = int(match["step"]), int(match["total"]), match.groupdict().get("loss")
            self._loss = float(loss) if loss else self._loss
        except ValueError:
            return
        if step > self._step:
            self._step, self._total = step, total
            if time.monotonic() - self._told_at >= SECONDS_BETWEEN_EVENTS:
                self._tell_step()

    def _tell_step(self) -> None:
        self._told_at = time.monotonic()
        seconds = round((self._told_at - self._started) / self._step, 4)
        loss = self._loss if self._loss is not None and math.isfinite(self._loss) else None
        self._tell(
            "step",
            step=self._step,
            total=self._total,
            epoch=0,
            loss=loss,
            loss_ema=loss,
            seconds=seconds,
            eta_seconds=round(max(0, self._total - self._step) * seconds, 1),
            points=[] if loss is None else [[self._step, loss, None, None, seconds]],
        )

    def _tell_result(self) -> None:
        """Tell which file came out of it, once it is known to be an adapter.

        Raises:
            RequestFailed: there is none, or it is none that could be used (``bad_request``).
        """
        self._tell("phase", phase="export", done=0, total=1)
        found = [path for path in self._output.rglob(self._order.result) if path.is_file()]
        if not found:
            raise RequestFailed(
                FailureCode.BAD_REQUEST,
                f"The external trainer left no file that is called like “{self._order.result}”.",
            )
        # Trainers save on the way, and the last one at the end.
        file = max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
        try:
            recognise_adapter(read_header(file, scalars_ending=SCALARS))
        except WeightsRefused as refusal:
            raise RequestFailed(
                FailureCode.BAD_REQUEST, f"What the external trainer made cannot be used: {refusal}"
            ) from refusal
        with file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        self._tell(
            "finished",
            step=self._step or self._total,
            file=str(file.relative_to(self._folder.root)),
            diffusers_file=None,
            sha256=digest,
            size_bytes=file.stat().st_size,
            training_loss=self._loss if self._loss is not None and math.isfinite(self._loss) else None,
            validation_loss=None,
            best_step=None,
            seconds={"train": round(time.monotonic() - self._started, 1)},
        )

    def _tell(self, event: str, **values: object) -> None:
        try:
            self._channel.emit(event, **values)
        except BrokenPipeError:  # the guard is gone, and nobody wants this any more
            self._stop()

    def _listen(self) -> None:
        for message in self._channel.requests():
            if message.get("type") == "stop":
                self._stop()

    def _stop(self) -> None:
        """Ask the trainer to end. Whether it saves something then is its own affair."""
        self._is_stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    r"""Yield what it prints, line by line and pass it on. A progress bar ends its lines with ``\r``."""
    output = cast(BufferedReader, process.stdout)
    pending = b""
    while data := output.read1(CHUNK_BYTES):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        *lines, pending = re.split(rb"[\r\n]", pending + data)
        pending = pending[-LONGEST_LINE:]
        for line in lines:
            yield line[:LONGEST_LINE].decode("utf-8", "replace")
    yield pending.decode("utf-8", "replace")


def _failed(ended: ChildExit) -> RequestFailed:
    """Return what to say of a trainer that failed. One that was killed may fare better the next time."""
    if ended.code < 0:
        return RequestFailed(FailureCode.TRAINER_ERROR, f"The external trainer: {ended.description}")
    return RequestFailed(
        FailureCode.BAD_REQUEST,
        f"The external trainer ended with exit status {ended.code}; the run log says why.",
    )
