"""One training from its folder to an adapter file: load, encode, train, export."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

import torch

from imagehub.jobs.protocol import Channel
from training.datasets.manifest import Manifest, ManifestDamaged
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.hardware import Hardware
from training.pipelines.loading import check_presence, load_pipeline
from training.trainer import sampling
from training.trainer.assignment import Assignment, RunFolder
from training.trainer.batches import Pictures
from training.trainer.caching import Cache
from training.trainer.checkpoints import Checkpoint, Checkpoints, Origin
from training.trainer.encoding import Encoder
from training.trainer.examples import Example, examples
from training.trainer.export import export_checkpoint
from training.trainer.loop import Training
from training.trainer.memory import Plan
from training.trainer.model import Model
from training.trainer.networks import add_adapter, trainable, trained
from training.trainer.optimizers import check_optimizer
from training.trainer.processes import Processes
from training.trainer.progress import Progress, peak_memory_bytes
from training.trainer.stepping import Stepper
from training.trainer.stopping import Stop, Stopping

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


class Run:
    """Carries out what the folder of a run says."""

    def __init__(
        self,
        folder: RunFolder,
        assignment: Assignment,
        *,
        channel: Channel | None,
        processes: Processes,
        stop: Stop,
    ) -> None:
        """Prepare a run. ``channel`` None: another process speaks for this one."""
        self.training: Training | None = None
        """From the moment on at which everything is loaded and encoded."""
        self.encoded_images = 0
        self.encoded_captions = 0
        self.progress = Progress(channel, folder.metrics, total=assignment.recipe.steps)
        self._folder, self._assignment, self._recipe = folder, assignment, assignment.recipe
        self._processes, self._stop = processes, stop

    def carry_out(self) -> bool:
        """Train to the end and write the adapter file; False when the end was asked for before that.

        Raises:
            RequestFailed: there is a reason why it cannot be done.
        """
        step, is_saved = 0, False
        try:
            checkpoints, checkpoint, manifest = self._look()
            step, is_saved = (checkpoint.step, True) if checkpoint else (0, False)
            with self.progress.phase("load"):
                model, plan = self._load(checkpoint)
            self.training = self._prepare(model, plan, manifest, checkpoints)
            if checkpoint is not None:
                self.training.resume(checkpoint)
            self.progress.resume(None if checkpoint is None else checkpoint.step)
            self.training.run()
        except Stopping:
            if self.training is not None:
                step, is_saved = self.training.done, self.training.is_saved
            self.progress.emit("stopped", step=step, saved=is_saved)
            return False
        if self._processes.is_main:
            self._export(self.training)
        return True

    def _look(self) -> tuple[Checkpoints, Checkpoint | None, Manifest]:
        """Return what there is to go on from, and the pictures. Nothing heavy is loaded before it is known to be right."""
        check_optimizer(self._recipe)
        try:
            manifest = Manifest.read(self._folder.manifest)
        except ManifestDamaged as error:
            raise RequestFailed(FailureCode.DATASET_INVALID, str(error)) from error
        if not manifest.of_role("train"):
            raise RequestFailed(FailureCode.DATASET_INVALID, "The data set holds no picture to learn from.")
        checkpoints = Checkpoints(
            self._folder,
            Origin(self._recipe, manifest.digest()),
            minimum_free_bytes=self._assignment.minimum_free_bytes,
        )
        checkpoint, damaged = checkpoints.newest()
        for step in damaged:
            self.progress.warn(
                "checkpoint_damaged",
                f"The checkpoint of step {step} is damaged, so the training goes on from an earlier one.",
            )
        return checkpoints, checkpoint, manifest

    def _load(self, checkpoint: Checkpoint | None) -> tuple[Model, Plan]:
        device = self._processes.device
        plan = Plan.of(self._recipe, device)
        if checkpoint is not None and checkpoint.progress["device"] == device.type:
            plan = Plan.parse(checkpoint.progress["plan"])  # what fitted then fits now
        hardware = Hardware(device, plan.dtype)
        with self._stop.breakable():
            check_presence(self._assignment.model)
            # That of SDXL computes nonsense in half precision, and it is used but once.
            pipeline = load_pipeline(self._assignment.model, hardware, autoencoder=torch.float32)
        model = Model(pipeline, hardware)
        sampling.check(model, self._recipe)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            model.unet.to(memory_format=torch.channels_last)
        parts = trained(model.parts, self._recipe)
        add_adapter(parts, self._recipe)
        self.progress.emit(
            "started",
            pid=os.getpid(),
            versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            device=device.type,
            dtype=str(plan.dtype).removeprefix("torch."),
            resumed_from=None if checkpoint is None else checkpoint.step,
            trainable_parameters=sum(weight.numel() for weight in trainable(parts.values())),
        )
        return model, plan

    def _prepare(self, model: Model, plan: Plan, manifest: Manifest, checkpoints: Checkpoints) -> Training:
        """Encode what is to be learned, once, and put the training together."""
        recipe = self._recipe
        shown = examples(manifest, recipe, "train")
        validated = examples(manifest, recipe, "validation") if recipe.validation_every else ()
        cache = Cache(self._assignment.cache)
        kept_in = torch.float32 if plan.precision == "no" else torch.float16
        encoder = Encoder(model, cache, self._folder.images, kept_in)
        with self._processes.main_first():
            pictures = self._encode(encoder, model, shown, validated)
        self.encoded_images, self.encoded_captions = encoder.encoded_images, encoder.encoded_captions
        if self._processes.is_main and self._assignment.cache_bytes:
            cache.clean(self._assignment.cache_bytes, keep=encoder.used)
        model.rest(model.vae, *(() if recipe.train_text_encoder else model.text_encoders.values()))
        return Training(
            self._folder,
            recipe,
            model,
            Stepper(model, recipe, plan, pictures, shown, self._processes),
            pictures,
            validated,
            token=self._assignment.token,
            checkpoints=checkpoints,
            processes=self._processes,
            progress=self.progress,
            stop=self._stop,
        )

    def _encode(
        self, encoder: Encoder, model: Model, shown: Sequence[Example], validated: Sequence[Example]
    ) -> Pictures:
        recipe = self._recipe
        for example in (*shown, *validated):
            if any(side % model.factor for side in example.bucket):
                raise RequestFailed(
                    FailureCode.DATASET_INVALID,
                    f"The sizes of the pictures are no multiples of {model.factor}, as the model needs them.",
                )
        wanted = {(example, False): None for example in (*shown, *validated)}
        if recipe.random_flip:
            wanted |= {(example, True): None for example in shown}
        with self.progress.phase("cache_latents", len(wanted)):
            latents = encoder.latents(wanted, self._report)
        if recipe.train_text_encoder:
            return Pictures(model, recipe, latents, None)
        captions = list(dict.fromkeys(example.caption for example in (*shown, *validated)))
        if recipe.caption_dropout:
            captions.append("")
        with self.progress.phase("cache_text", len(captions)):
            return Pictures(model, recipe, latents, encoder.texts(captions, self._report))

    def _report(self, done: int, total: int) -> None:
        self._stop.check()
        self.progress.done(done, total)

    def _export(self, training: Training) -> None:
        with self.progress.phase("export"):
            exported = export_checkpoint(self._folder, training.done)
        self.progress.emit(
            "finished",
            step=training.done,
            file=str(exported.file.relative_to(self._folder.root)),
            diffusers_file=None,
            sha256=exported.sha256,
            size_bytes=exported.size_bytes,
            training_loss=self.progress.loss_ema,
            validation_loss=training.best.loss,
            best_step=training.best_checkpoint.step,
            encoded_images=self.encoded_images,
            encoded_captions=self.encoded_captions,
            seconds=self.progress.summary(),
            peak_memory_bytes=peak_memory_bytes(),
        )
