"""Checkpoints: states of a training that it can go on from, each in a folder of its own that is whole or not there.

``checkpoints/step-000100/`` holds ``adapter.safetensors`` (the weights of the adapter in float32, such as
``unet.….to_q.lora_A.weight``), ``state.pt`` (whatever else the training needs: optimizer, schedule, scaler) and
``manifest.json``, which is written last and tells size and SHA-256 of the others. Noise, timesteps and order are functions
of seed and step, so no state of a random generator is kept.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.pipelines.failures import FailureCode, RequestFailed
from training.recipe import Recipe
from training.trainer.assignment import RunFolder
from training.trainer.checkpoint_files import (
    ADAPTER,
    MANIFEST,
    STATE,
    VERSION,
    Checkpoint,
    CheckpointDamaged,
    best_of,
    describe,
    folder_name,
    manifest_bytes,
    read_manifest,
    size_on_disk,
    steps_in,
    verify,
)
from training.trainer.writing import naming_failures, sync

ROOM = 1.5
"""So many times the size of the last checkpoint has to be free before the next is written."""

PARTIAL = ".tmp-"


@dataclass(frozen=True)
class Origin:
    """What a checkpoint was made of: with another recipe or other pictures nobody could tell what came out."""

    recipe: Recipe
    dataset_sha256: str

    @property
    def recipe_sha256(self) -> str:
        """The digest of all of the recipe but the number of steps, which may be raised."""
        return self.recipe.model_copy(update={"steps": 1}).digest()


class Checkpoints:
    """The checkpoints of one run. Only one process writes them at a time."""

    def __init__(self, run: RunFolder, origin: Origin, *, minimum_free_bytes: int = 0) -> None:
        """Look after the checkpoints in the folder of a run; ``minimum_free_bytes`` stay free on its disk."""
        self._folder = run.checkpoints
        self._origin = origin
        self._minimum_free_bytes = minimum_free_bytes

    def save(
        self,
        step: int,
        *,
        weights: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        progress: Mapping[str, Any] | None = None,
        validation_loss: float | None = None,
    ) -> Checkpoint:
        """Write a checkpoint and read it again; it is on disk when this returns.

        One of the same step that verifies stays, for the same steps lead to the same state; a damaged one is replaced.

        Args:
            step: how many optimizer steps are done.
            weights: the tensors of the adapter, from whatever device: by the part of the pipeline, and behind that as
                ``peft.get_peft_model_state_dict`` names them.
            state: anything that ``torch.load(weights_only=True)`` reads.
            progress: anything that JSON can say, for :attr:`Checkpoint.progress`.
            validation_loss: at this step, if it was measured.

        Raises:
            RequestFailed: there is not enough room (``disk_full``), or the files cannot be written (``storage_error``).
                The checkpoints that were there are as they were.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self.sweep()
        target = self._folder / folder_name(step)
        if (there := self._verified(step)) is not None:
            return there
        self._check_room(weights, state)
        partial = self._folder / f"{PARTIAL}{target.name}"
        try:
            with naming_failures("the checkpoint"):
                partial.mkdir()
                save_file(
                    {
                        name: tensor.detach().to("cpu", torch.float32).contiguous()
                        for name, tensor in weights.items()
                    },
                    partial / ADAPTER,
                )
                with (partial / STATE).open("wb") as file:
                    torch.save(dict(state), file)
                content = {
                    "version": VERSION,
                    "step": step,
                    "steps": self._origin.recipe.steps,
                    "recipe_sha256": self._origin.recipe_sha256,
                    "dataset_sha256": self._origin.dataset_sha256,
                    "validation_loss": validation_loss,
                    "progress": dict(progress or {}),
                    "files": {name: describe(partial / name) for name in (ADAPTER, STATE)},
                }
                (partial / MANIFEST).write_bytes(manifest_bytes(content))
                for path in (*partial.iterdir(), partial):
                    sync(path)
                if target.exists():  # damaged, and a folder cannot be renamed over another
                    self._remove(step)
                partial.rename(target)
                sync(self._folder)
        finally:
            self.sweep()
        try:
            return verify(target)
        except CheckpointDamaged as error:
            raise RequestFailed(
                FailureCode.STORAGE_ERROR,
                f"The checkpoint of step {step} cannot be read back as it was written.",
            ) from error

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints that are there, damaged or not, from the first."""
        return steps_in(self._folder)

    def newest(self) -> tuple[Checkpoint | None, list[int]]:
        """Return the latest checkpoint that verifies, and the steps of later ones, which are damaged.

        Raises:
            RequestFailed: it belongs to another recipe or other pictures, or was made for more steps than are
                wanted now (``checkpoint_mismatch``).
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            if (checkpoint := self._verified(step)) is not None:
                self._check_origin(checkpoint)
                return checkpoint, damaged
            damaged.append(step)
        return None, damaged

    def prune(self, *, keep: int, pinned: Collection[int] = ()) -> list[int]:
        """Delete checkpoints, and return their steps: all but the latest ``keep``, the best and those that are pinned.

        Only checkpoints that verify count: a damaged one never costs the life of a good one before it. The best is that
        with the lowest validation loss, the earlier of two. While none verifies, nothing is deleted.
        """
        found = map(self._verified, reversed(self.steps()))
        good = [checkpoint for checkpoint in found if checkpoint is not None]
        if not good:
            return []
        kept = {checkpoint.step for checkpoint in good[:keep]} | set(pinned)
        if (best := best_of(good)) is not None:
            kept.add(best.step)
        removed = [step for step in self.steps() if step not in kept]
        for step in removed:
            self._remove(step)
        return removed

    def sweep(self) -> None:
        """Delete what writers that died have left behind."""
        for leftover in self._folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _verified(self, step: int) -> Checkpoint | None:
        try:
            return verify(self._folder / folder_name(step))
        except CheckpointDamaged:
            return None

    def _remove(self, step: int) -> None:
        """Rename it first: what is half deleted when this dies is no checkpoint any more."""
        doomed = self._folder / f"{PARTIAL}old-{folder_name(step)}"
        (self._folder / folder_name(step)).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _check_room(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        steps = self.steps()
        last = size_on_disk(self._folder / folder_name(steps[-1])) if steps else 0
        expected = last or sum(4 * tensor.numel() for tensor in weights.values()) + _nbytes(state)
        needed = int(ROOM * expected) + self._minimum_free_bytes
        if (free := shutil.disk_usage(self._folder).free) < needed:
            raise RequestFailed(
                FailureCode.DISK_FULL,
                f"The disk is full: the next checkpoint needs {needed:,} bytes free, and {free:,} are.",
            )

    def _check_origin(self, checkpoint: Checkpoint) -> None:
        content = read_manifest(checkpoint.folder)
        if content["recipe_sha256"] != self._origin.recipe_sha256:
            raise _mismatch(f"The checkpoint of step {checkpoint.step} was made with another recipe.")
        if content["dataset_sha256"] != self._origin.dataset_sha256:
            raise _mismatch(f"The checkpoint of step {checkpoint.step} was made with other pictures.")
        if self._origin.recipe.steps < checkpoint.step:
            raise _mismatch(
                f"The checkpoint of step {checkpoint.step} lies behind the {self._origin.recipe.steps} steps that are wanted."
            )


def load_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the tensors of the adapter, in float32 on the CPU, by the names they were saved under."""
    return load_file(checkpoint.adapter)


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what else was saved, on the CPU. Nothing in the file is executed."""
    return torch.load(checkpoint.folder / STATE, map_location="cpu", weights_only=True)


def _nbytes(value: Any) -> int:
    """Return how many bytes the tensors in nested dictionaries and lists take."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    return 0


def _mismatch(detail: str) -> RequestFailed:
    return RequestFailed(FailureCode.CHECKPOINT_MISMATCH, detail)
