"""Speaks as a trainer does, without training: ``python -m training.tests.programs.play_trainer WAY FOLDER``.

Each step takes a moment. Checkpoints are real enough to be verified, and the adapter to be taken in.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from imagehub.jobs.protocol import Channel, ExitCode
from training.tests.weight_headers import write_sd1_adapter
from training.trainer import checkpoint_files
from training.trainer.assignment import Assignment, RunFolder

STEP_SECONDS = 0.03
EVERY = 4
"""Steps between two checkpoints."""


class Play:
    def __init__(self, way: str, folder: Path) -> None:
        self.way = way
        self.folder = RunFolder(folder)
        self.assignment = Assignment.read(self.folder)
        self.channel = Channel.from_environment()
        self.wish: dict | None = None
        self.kept: list[int] = []

    def main(self) -> None:
        if self.way == "ignores TERM":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.way != "silent":
            threading.Thread(target=self.beat, daemon=True).start()
        if self.way != "ignores TERM":
            threading.Thread(target=self.listen, daemon=True).start()
            signal.signal(signal.SIGTERM, lambda *_: setattr(self, "wish", {"save": True}))
        done = self.resumed_step()
        self.channel.emit(
            "started",
            pid=os.getpid(),
            versions={"torch": "0"},
            device="cpu",
            dtype="float32",
            resumed_from=done or None,
            trainable_parameters=1000,
        )
        self.channel.emit("phase", phase="load", done=0, total=1)
        if self.way == "refuses":
            self.fail(
                "model_missing", "The model at /srv/models/secret/unet is not there.", ExitCode.MODEL_MISSING
            )
        if not done:
            self.channel.emit("validation", step=0, loss=1.5, is_best=False)
        total = self.assignment.recipe.steps
        for step in range(done + 1, total + 1):
            time.sleep(STEP_SECONDS)
            self.step(step, total)
            if self.wish:
                self.stop(step)
            if step % EVERY == 0 or step == total:
                self.save(step)
        self.finish(total)

    def step(self, step: int, total: int) -> None:
        loss = 1.0 / step
        points = [[step, loss, 1e-4, 0.5, STEP_SECONDS]]
        self.channel.emit(
            "step", step=step, total=total, epoch=0, loss=loss, loss_ema=loss, learning_rate=1e-4, grad_norm=0.5,
            seconds=STEP_SECONDS, eta_seconds=float(total - step), peak_memory_bytes=step * 100, points=points,
        )  # fmt: skip
        if step == 6:
            self.misbehave()

    def misbehave(self) -> None:
        first_time = not (self.folder.root / "has misbehaved").exists()
        (self.folder.root / "has misbehaved").touch()
        way = self.way
        if way == "crashes once" and first_time:
            sys.exit(ExitCode.BUG)
        if way == "crashes":
            sys.exit(ExitCode.BUG)
        if way == "is killed once" and first_time:
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "finds the folder busy once" and first_time:
            self.fail("folder_busy", "Another process trains in the folder of this run.", ExitCode.BUSY)
        if way == "NaN":
            self.fail("not_a_number", "The loss was not a number in 3 steps.", ExitCode.NOT_A_NUMBER)
        if way in {"hangs", "silent", "ignores TERM"}:
            time.sleep(600)
        if way == "forks":
            subprocess.Popen(["sleep", "601.5"])
            sys.exit(ExitCode.BUG)
        if way == "floods":
            for number in range(20_000):
                self.channel.emit("step", step=6, total=10, loss=float(number))
        if way == "damaged":
            pipe = self.channel._events.fileno()
            os.write(pipe, b"Loading...\n[1]\n\xff\n")
            for event in (
                "step",
                "sample",
                "checkpoint",
                "validation",
                "phase",
                "changed",
                "error",
                "finished",
                "_",
            ):
                self.channel.emit(event, step=-1, file="../../../etc/passwd", code=7, phase=None, index=True)
            self.channel.emit("step", step=6, total=10, points=[[1], "x", None])
            self.channel.emit(
                "sample", step=6, index=0, prompt="a", seed=1, file="/etc/passwd", width=1, height=1
            )
            print("Drawing " + self.assignment.recipe.sample_prompts[0], "token=abc-secret", flush=True)  # noqa: T201

    def save(self, step: int) -> None:
        loss = 0.5 + abs(8 - step) / 10
        self.channel.emit("validation", step=step, loss=loss, is_best=step <= 8)
        self.write_sample(step)
        target = self.folder.checkpoints / checkpoint_files.folder_name(step)
        target.mkdir(parents=True, exist_ok=True)
        (target / checkpoint_files.ADAPTER).write_bytes(b"weights %d" % step)
        content = {
            "version": checkpoint_files.VERSION,
            "step": step,
            "validation_loss": loss,
            "progress": {},
            "files": {checkpoint_files.ADAPTER: checkpoint_files.describe(target / checkpoint_files.ADAPTER)},
        }
        (target / checkpoint_files.MANIFEST).write_bytes(checkpoint_files.manifest_bytes(content))
        found = checkpoint_files.verify(target)
        self.channel.emit(
            "checkpoint", step=step, folder=f"checkpoints/{target.name}", sha256=found.sha256,
            size_bytes=found.size_bytes, validation_loss=loss, is_best=step == 8, removed=[],
        )  # fmt: skip

    def write_sample(self, step: int) -> None:
        from PIL import Image

        self.folder.samples.mkdir(exist_ok=True)
        name = f"samples/step-{step:06d}-0.png"
        Image.new("RGB", (64, 64), (step * 20, 90, 120)).save(self.folder.root / name)
        self.channel.emit(
            "sample", step=step, index=0, prompt="a zebra, canary7f3e", seed=1, file=name, width=64, height=64
        )

    def finish(self, step: int) -> None:
        file = self.folder.export / "adapter.safetensors"
        write_sd1_adapter(file, mark=self.assignment.run_id)
        self.channel.emit("warning", code="slow", detail="It became slow.")
        self.channel.emit("changed", code="gradient_checkpointing", detail="On.", before=False, after=True)
        if self.way == "no result":
            return
        self.channel.emit(
            "finished", step=step, file="export/adapter.safetensors", diffusers_file=None, sha256="0" * 64,
            size_bytes=file.stat().st_size, training_loss=0.1, validation_loss=0.5, best_step=8,
            encoded_images=2, encoded_captions=2, seconds={"train": 0.3}, peak_memory_bytes=5000,
        )  # fmt: skip

    def stop(self, step: int) -> None:
        saves = self.wish.get("save", True)
        if saves:
            self.save(step)
        self.channel.emit("stopped", step=step, saved=saves)
        (self.folder.root / "wishes").write_text(json.dumps(self.wish))
        sys.exit(ExitCode.STOPPED if saves else ExitCode.INTERRUPTED)

    def fail(self, code: str, detail: str, status: ExitCode) -> None:
        self.channel.emit("error", code=code, detail=detail)
        sys.exit(status)

    def resumed_step(self) -> int:
        for step in reversed(checkpoint_files.steps_in(self.folder.checkpoints)):
            try:
                checkpoint_files.verify(self.folder.checkpoints / checkpoint_files.folder_name(step))
            except checkpoint_files.CheckpointDamaged:
                self.channel.emit("warning", code="checkpoint_damaged", detail=f"Step {step} is damaged.")
            else:
                return step
        return 0

    def beat(self) -> None:
        while True:
            self.channel.emit("heartbeat")
            time.sleep(0.2)

    def listen(self) -> None:
        for request in self.channel.requests():
            if request["type"] == "stop":
                self.wish = request


if __name__ == "__main__":
    Play(sys.argv[1], Path(sys.argv[2])).main()
