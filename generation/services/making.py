"""Making the pictures of claimed jobs.

While the engine works on one picture, the worker stores the one before: the file, its row, what belongs to it. So the
last picture of a job is stored while the first one of the next job is made.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import transaction

from albums.models import Album, Image
from albums.services import adopt_image_file, local_image, request_derivatives, save_image
from generation.infotext import infotext, parameters_json
from generation.models import GenerationJob
from generation.services.hindrances import refuse_hindered
from generation.services.set_places import position_in_set
from generation.services.stacks import find_adapters
from generation.warm_engine import EngineCancelled, WarmEngine, get_engine, has_engine
from imagehub import storage
from imagehub.config import get_config
from imagehub.errors import ImageHubError, NotReady
from imagehub.jobs import live
from imagehub.jobs.child import ChildDied
from imagehub.jobs.lease import (
    JobCancelled,
    JobFailed,
    JobInterrupted,
    Lease,
    LeaseLost,
    WorkerStopping,
    told_as_failures,
)
from imagehub.jobs.runner import finish_previous
from training.services import locate_adapter, locate_base_model


class InitImageGone(NotReady):
    code = "init_image_missing"
    title = "The picture to start from is not there"


ENGINE_LOST = frozenset({"engine_died", "engine_timeout"})

_lost_to_others: set[UUID] = set()
"""Jobs whose last picture was lost with an engine that was at work for another job. Next time they have it for themselves: a
job that kills its engine must not come round for ever."""


def generate_images(job: GenerationJob, lease: Lease) -> Callable[[], None] | None:
    """Make the pictures of a claimed job that are not there yet.

    Each picture's file is stored before its row, and the row is written under the lease's fence, so a worker that dies or
    is overtaken at any point leaves every picture there once. The last one is stored, and the job completed, by the
    function that is returned, if any: see ``runner.finish_previous``.

    Raises:
        JobFailed: a picture cannot be made or stored; those before it are kept.
        JobCancelled, WorkerStopping, LeaseLost: see ``Lease``.
    """
    staging = f"generation-{job.pk}-{job.token}"  # a worker that was overtaken must not touch its successor's
    with ExitStack() as exits:
        exits.callback(storage.delete_staging_dir, staging)
        with told_as_failures():
            production = _Production(job, lease, storage.staging_dir(staging))
            exits.enter_context(production.prepared())
            production.make_all()
        rest = exits.pop_all()

    def finish() -> None:
        with rest, told_as_failures():
            production.store(is_last=True)

    if job.pk not in _lost_to_others:
        return finish
    finish()
    _lost_to_others.discard(job.pk)  # only now: what is lost again was lost by itself
    return None


@dataclass(frozen=True)
class _Made:
    """A picture whose pixels are there, and what waits for its file and tells how long it took."""

    image: Image
    collect: Callable[[], dict[str, float]]


class _Production:
    """The pictures of one job on their way: at most one is being made, and one waits to be stored."""

    def __init__(self, job: GenerationJob, lease: Lease, staging: Path) -> None:
        self.job = job
        self.lease = lease
        self.staging = staging
        self._made: _Made | None = None
        self._asked: set[str] = set()
        self._timings: dict[str, float] = {}
        self._parts: dict[str, Any] = {}

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Find what all pictures of the job are made of, and keep it at hand."""
        job = self.job
        refuse_hindered(job)
        with ExitStack() as stack:
            self._parts = {
                "model": locate_base_model(job.base_model),
                "adapters": _adapters(job),
                "init_image": None,
                "strength": None,
            }
            if job.strength is not None:
                if job.init_image is None:
                    raise InitImageGone("The picture to start from has been deleted.")
                if (
                    not storage.is_local()
                ):  # what waits to be stored shall not wait for what has to be fetched
                    finish_previous()
                path = stack.enter_context(local_image(job.init_image))
                self._parts |= {"init_image": str(path), "strength": job.strength}
            yield

    def make_all(self) -> None:
        """Make what is missing, and store it but for the last."""
        stored = set(Image.objects.made_by(self.job.pk).values_list("source_index", flat=True))
        try:
            for index in range(self.job.n):
                if index not in stored:
                    self.lease.raise_if_stopping()
                    self._make(_image(self.job, index))
        except LeaseLost:
            raise
        except Exception:
            with suppress(ImageHubError):  # what stopped the work is the news, and not this
                self.store()
            raise

    def store(self, *, is_last: bool = False) -> None:
        """Store the picture that was made last, if it is not stored yet; with the last one the job is complete.

        Raises:
            LeaseLost: the job is no longer ours; nothing is written.
            ImageHubError: it cannot be stored.
        """
        made, self._made = self._made, None
        if made is None and not is_last:
            return
        if made is not None:
            self._timings = made.collect()
            adopt_image_file(made.image, self._file(made.image))
        with transaction.atomic():
            if made is not None:
                album = _lock_album(self.job)
                self.lease.renew()
                save_image(made.image, album=album, position=position_in_set(self.job, album))
                request_derivatives([made.image.pk])
            if is_last:
                self.lease.complete(timings=self._timings)

    def _make(self, image: Image) -> None:
        """Let the engine make one picture, and store the one before while it does."""
        config = get_config().engine
        if not has_engine(config):  # what another engine has not handed over yet would be lost with it
            finish_previous()
            self.store()
        engine = get_engine(config)
        is_watched = live.is_watched(self.job.pk)
        key = engine.begin(self._request(image, is_watched=is_watched), sensitive=self.job.sensitive_texts())
        self._asked.add(key)
        try:
            self._report(image, "Starting the engine")
            finish_previous()
            self.store()
            self._follow(engine, key, image, is_watched=is_watched)
        except BaseException:
            with suppress(ChildDied):
                engine.abandon(key)
            raise
        self._made = _Made(image, lambda: self._collect(engine, key))
        with suppress(ChildDied):
            engine.ask_for_statistics()

    def _collect(self, engine: WarmEngine, key: str) -> dict[str, float]:
        """Wait for the file of a picture; return how long what took. Nobody can stop that any more.

        Raises:
            LeaseLost, DatabaseError: from the lease. Only once the file is there: the engine is at work for the next job, and
                what is raised while one listens to it would kill it.
            JobInterrupted: the engine died at work for another job, which pays for it.
            JobFailed: see ``WarmEngine.collect``.
        """
        trouble: LeaseLost | DatabaseError | None = None

        def keep_alive() -> bool:
            nonlocal trouble
            if trouble is None:
                try:
                    self.lease.beat()
                except (LeaseLost, DatabaseError) as error:
                    trouble = error
            return False

        try:
            done = engine.collect(key, should_stop=keep_alive)
        except JobFailed as error:
            if error.code not in ENGINE_LOST or engine.open_requests <= self._asked:
                raise
            _lost_to_others.add(self.job.pk)
            raise JobInterrupted(error.code, str(error), is_counted=False) from error
        if trouble is not None:
            raise trouble
        return done["timings"]

    def _follow(self, engine: WarmEngine, key: str, image: Image, *, is_watched: bool) -> None:
        def on_event(event: dict[str, Any]) -> None:
            nonlocal is_watched
            match event:
                case {"event": "step", "step": int(step)}:
                    self._report(image, "Denoising", step=step)
                    if live.is_watched(self.job.pk) != is_watched:
                        is_watched = not is_watched
                        engine.show_previews(key, is_watched=is_watched)
                case {"event": "preview"}:
                    live.publish(self.job, event)
                case {"event": "phase", "phase": "load"}:
                    self._report(image, "Loading the model")

        try:
            engine.follow(key, on_event=on_event, should_stop=self.lease.should_stop)
        except EngineCancelled:
            raise JobCancelled if self.lease.cancel_requested else WorkerStopping from None

    def _report(self, image: Image, message: str, *, step: int = 0) -> None:
        before = image.source_index * self.job.steps
        self.lease.report(step=before + step, total_steps=self.job.n * self.job.steps, message=message)

    def _file(self, image: Image) -> Path:
        return self.staging / f"{image.source_index}.png"

    def _request(self, image: Image, *, is_watched: bool) -> dict[str, Any]:
        job = self.job
        seed = job.image_seed(image.source_index)
        return self._parts | {
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "seed": seed,
            "steps": job.steps,
            "width": job.width,
            "height": job.height,
            "guidance_scale": job.guidance_scale,
            "scheduler": job.scheduler or None,
            "previews": is_watched,
            "output": str(self._file(image)),
            "text": {
                "parameters": infotext(job, seed=seed),
                "imagehub": parameters_json(job, seed=seed),
            },
        }


def _adapters(job: GenerationJob) -> list[dict[str, Any]]:
    """Return the stack of a job as the engine wants it.

    Raises:
        AdapterMissing: an adapter is gone or disabled, or its file is not on this machine.
    """
    return [
        {
            "id": str(lora["id"]),
            "name": lora.get("name", ""),
            "source": str(locate_adapter(adapter)),
            "weight": lora["weight"],
        }
        for adapter, lora in find_adapters(job.loras)
    ]


def _lock_album(job: GenerationJob) -> Album | None:
    """Return the album that a picture goes into, locked before the job is: so does who deletes or merges albums.

    Looked up only now: whoever deleted it meanwhile did not mean the picture, and who merged it named another.
    """
    jobs = GenerationJob.objects.filter(pk=job.pk, album__isnull=False)
    while pk := jobs.values_list("album_id", flat=True).first():
        if album := Album.objects.select_for_update(no_key=True).filter(pk=pk).first():
            return album
    return None


def _image(job: GenerationJob, index: int) -> Image:
    seed = job.image_seed(index)
    return Image(
        owner=job.owner,
        name=job.image_name(index),
        visibility=job.visibility,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        seed=seed,
        steps=job.steps,
        guidance_scale=job.guidance_scale,
        scheduler=job.scheduler,
        base_model=job.base_model.name,
        # Those of weight 0 took no part in it.
        loras=[lora for lora in job.loras if lora["weight"]],
        source_kind=Image.SourceKind.GENERATION,
        source_id=job.pk,
        source_index=index,
    )
