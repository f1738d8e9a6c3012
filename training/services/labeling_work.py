"""Labeling the images of claimed jobs: the program is shown them batch by batch, and what it says is stored at once."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.db import transaction

from albums.models import Image, Label, LabelKind, LabelOrigin
from albums.services import ImageFileMissing, NewLabel, local_image, put_labels, update_images
from albums.services.bulk import lock_images
from imagehub import roots
from imagehub.config import get_config
from imagehub.config_schema import LabelingConfig
from imagehub.errors import Invalid
from imagehub.jobs.child import (
    Child,
    ChildDied,
    ChildLimits,
    ChildTimedOut,
    environment_without_secrets,
    watch,
)
from imagehub.jobs.lease import (
    JobCancelled,
    JobFailed,
    JobInterrupted,
    Lease,
    WorkerStopping,
    told_as_failures,
)
from imagehub.jobs.protocol import ExitCode
from imagehub.jobs.run_log import RunLog
from training.models import LabelingItem, LabelingJob
from training.services.labeling import ChosenModel, find_model

HOPELESS = {ExitCode.BAD_REQUEST, ExitCode.MODEL_MISSING, ExitCode.OUT_OF_MEMORY}
"""How a program ends that would end so again."""

MOST_DEATHS = 5
"""So many programs in a row end without a word before it is no longer the pictures that they end of."""

LONGEST_DETAIL = LabelingItem._meta.get_field("detail").max_length or 0

State = LabelingItem.State
Task = LabelingJob.Task


def label_images(job: LabelingJob, lease: Lease) -> None:
    """Label the images of a claimed job that wait for it.

    Each batch is stored under the lease's fence, its items with it: a worker that takes a job over goes on behind what is
    stored. What people have said stays unless the job overwrites it, and what cannot be labeled stays as it was: unknown,
    where nobody knew.

    Raises:
        JobFailed: the model cannot be used, or nothing could be labeled.
        JobInterrupted: the program was lost.
        JobCancelled, WorkerStopping, LeaseLost: see ``Lease``.
    """
    with told_as_failures():
        config = get_config().labeling
        work = _Work(job, lease, config, find_model(job.task, job.model))
        try:
            while batch := work.next_batch():
                lease.raise_if_stopping()
                work.do(batch)
        finally:
            work.end()
        _complete(job, lease)


def _complete(job: LabelingJob, lease: Lease) -> None:
    items = LabelingItem.objects.filter(job=job)
    if not items.exclude(state=State.FAILED).exists():
        detail = items.values_list("detail", flat=True).first()
        raise JobFailed("nothing_labeled", f"None of {job.total} images could be labeled. {detail}")
    lease.complete(step=job.total)


class _Work:
    """The program of one job, and the conversation with it. It is started when the first picture needs it."""

    def __init__(self, job: LabelingJob, lease: Lease, config: LabelingConfig, model: ChosenModel) -> None:
        self.job, self.lease, self.config, self.model = job, lease, config, model
        self._ends_at = time.monotonic() + config.wall_seconds
        self._child: Child | None = None
        self._author = ""
        self._error: dict[str, Any] = {}
        self._is_ready = False
        self._deaths = 0
        self._has_stored = False

    def next_batch(self) -> list[LabelingItem]:
        """Return the next items that wait, in their order."""
        waiting = LabelingItem.objects.filter(job=self.job, state=State.WAITING).select_related("image")
        return list(waiting.order_by("position")[: self.config.batch_size])

    def do(self, batch: Sequence[LabelingItem]) -> None:
        """Label some images, and store what was said."""
        self._report(batch[0].position, "" if self._child else "Loading the model")
        kept = self._kept_by_people(batch)
        with ExitStack() as files:
            paths = {}
            for item in batch:
                if item.image is None or item.image.deleted_at:
                    item.state, item.detail = State.FAILED, "The image has been deleted."
                elif item.image_id in kept:
                    item.state = State.KEPT
                else:
                    try:
                        paths[item.position] = str(files.enter_context(local_image(item.image)))
                    except ImageFileMissing:
                        item.state, item.detail = State.FAILED, "The file is missing from the store."
            found = self._ask(paths) if paths else {}
        self._store(batch, found)
        self._report(batch[-1].position + 1, "")

    def end(self) -> None:
        """End the program."""
        if self._child is not None:
            self._child.stop(self.config.grace_seconds)

    def _kept_by_people(self, batch: Sequence[LabelingItem]) -> set[Any]:
        """Return the images of which people have said already what is asked for, and which the job leaves alone."""
        ids = [item.image_id for item in batch if item.image_id]
        if (
            self.job.overwrite or self.job.task == Task.TAG
        ):  # each tag is looked at by itself when it is stored
            return set()
        if self.job.task == Task.NSFW:
            known = Image.objects.filter(pk__in=ids).exclude(nsfw=Image.Nsfw.UNKNOWN)
            return set(known.values_list("pk", flat=True))
        captions = Label.objects.filter(image__in=ids, kind=LabelKind.CAPTION, origin=LabelOrigin.HUMAN)
        return set(captions.values_list("image_id", flat=True))

    # ---- The conversation ----

    def _ask(self, paths: dict[int, str]) -> dict[int, dict[str, Any]]:
        """Show pictures to the model; return what it said, by the positions of items.

        When the program dies, each picture is shown alone: the one that it dies of has failed, and spoils no other.
        """
        found: dict[int, dict[str, Any]] = {}
        try:
            self._converse(paths, found)
        except ChildDied as error:
            self._bury(error)
            for position in [position for position in paths if position not in found]:
                try:
                    self._converse({position: paths[position]}, found)
                except ChildDied as again:
                    self._bury(again)
                    found[position] = {"event": "failed", "detail": "The labeler ended at this picture."}
        return found

    def _converse(self, paths: dict[int, str], found: dict[int, dict[str, Any]]) -> None:
        """Show pictures to the model, and add what it says to ``found``.

        Raises:
            ChildDied: the program ended over it.
            JobFailed: it went silent.
            JobInterrupted: the time of this attempt is up.
            JobCancelled, WorkerStopping, LeaseLost: see ``Lease``.
        """

        def hear(event: dict[str, Any]) -> None:
            match event.get("event"):
                case "ready":
                    self._author, self._is_ready = str(event.get("model", "")), True
                case "error":
                    self._error = event
                case "labeled" | "failed" if event.get("id") in paths:
                    found[event["id"]] = event
                    self._deaths = 0

        config = self.config
        child = self._child or self._start()
        limits = ChildLimits(
            max(self._ends_at - time.monotonic(), 0.0), config.idle_seconds, config.grace_seconds
        )
        try:
            items = [{"id": position, "path": path} for position, path in paths.items()]
            child.send({"type": "label", "items": items})
            outcome = watch(
                child,
                limits=limits,
                on_event=hear,
                should_stop=self.lease.should_stop,
                is_final=lambda event: event.get("event") == "batch",
            )
        except ChildTimedOut as error:
            if error.which == "idle":
                raise JobFailed("labeler_timeout", str(error)) from error
            # What is stored stays: an attempt that came further costs the job none.
            raise JobInterrupted(
                "labeler_timeout", "It took longer than one attempt may.", is_counted=not self._has_stored
            ) from error
        if outcome.final is None:
            raise JobCancelled if self.lease.cancel_requested else WorkerStopping

    def _start(self) -> Child:
        log = RunLog(
            roots.logs_root() / f"labeler-{os.getpid()}.log", limit_bytes=self.config.log_limit_bytes
        )
        training = get_config().training
        options = {
            "--task": self.job.task,
            "--model": self.model.source,
            "--name": self.model.name,
            "--kind": "hub" if self.model.is_on_hub else "folder",
            "--device": training.device,
            "--threads": training.threads,
            "--tag-threshold": self.config.tag_threshold,
        }
        argv = [
            sys.executable,
            "-m",
            "training.labeler",
            *(str(part) for pair in options.items() for part in pair),
        ]
        if self.config.allow_downloads:
            argv.append("--allow-download")
        self._child = Child(
            argv,
            cwd=settings.BASE_DIR,
            log=log,
            env=environment_without_secrets() | {"OMP_NUM_THREADS": str(training.threads)},
        )
        self._is_ready = False
        self._child.start()
        log.begin_job()
        return self._child

    def _bury(self, error: ChildDied) -> None:
        """Note that the program has ended, so that the next one is started.

        Raises:
            JobFailed: the next one would end so again.
            JobInterrupted: it cannot have been a picture that it ended of.
        """
        if self._child is not None:
            self._child.kill()  # and tidy up
        self._child = None
        self._deaths += 1
        if self._error:
            raise JobFailed(str(self._error.get("code")), str(self._error.get("detail"))) from error
        if error.exit.code in HOPELESS:
            raise JobFailed("labeler_died", f"The labeler ended: {error.exit.description}") from error
        if not self._is_ready or self._deaths > MOST_DEATHS:
            raise JobInterrupted("labeler_died", f"The labeler ended: {error.exit.description}") from error

    # ---- What was said ----

    def _store(self, batch: Sequence[LabelingItem], found: dict[int, dict[str, Any]]) -> None:
        asked = [item for item in batch if item.state == State.WAITING]
        for item in asked:
            _note(item, found.get(item.position, {}), self.job.task)
        labeled = [item for item in asked if item.state == State.LABELED]
        with transaction.atomic():
            if self.job.task == Task.NSFW:
                self._judge(labeled)
            else:
                self._say(labeled, found)
            LabelingItem.objects.bulk_update(batch, ["state", "detail", "confidence"])
            self.lease.renew()
        self._has_stored = True

    def _say(self, labeled: Sequence[LabelingItem], found: dict[int, dict[str, Any]]) -> None:
        kind = LabelKind.CAPTION if self.job.task == Task.CAPTION else LabelKind.TAG
        rows = []
        for item in labeled:
            try:
                rows += [
                    NewLabel(
                        item.image_id,  # type: ignore[arg-type]
                        kind,
                        said["text"],
                        LabelOrigin.MODEL,
                        model=self._author,
                        confidence=said.get("confidence"),
                        user=self.job.owner,
                        replace_human=self.job.overwrite,
                    )
                    for said in found[item.position]["said"]
                ]
            except Invalid as error:
                item.state, item.detail = State.FAILED, str(error)[:LONGEST_DETAIL]
        put_labels(rows)

    def _judge(self, labeled: Sequence[LabelingItem]) -> None:
        """Note which pictures are fit for everybody; what somebody has judged meanwhile stays."""
        images = Image.objects.live()
        if not self.job.overwrite:
            images = images.filter(nsfw=Image.Nsfw.UNKNOWN)
        held = set(lock_images(images, sorted(item.image_id for item in labeled if item.image_id)))
        limit = self.config.nsfw_threshold
        for verdict in (Image.Nsfw.FLAGGED, Image.Nsfw.SAFE):
            update_images(
                [
                    item.image_id
                    for item in labeled
                    if item.image_id in held
                    and item.confidence is not None
                    and (item.confidence >= limit) == (verdict == Image.Nsfw.FLAGGED)
                ],
                nsfw=verdict,
            )
        for item in labeled:
            if item.image_id not in held:
                item.state = State.KEPT

    def _report(self, done: int, message: str) -> None:
        self.lease.report(step=done, total_steps=self.job.total, message=message)


def _note(item: LabelingItem, event: Mapping[str, Any], task: str) -> None:
    """Note what the program said of one picture. Whatever it did not say clearly is a failure."""
    is_said = event.get("event") == "labeled"
    if is_said and task == Task.NSFW and isinstance(event.get("unfit"), int | float):
        item.state, item.confidence = State.LABELED, float(event["unfit"])
    elif is_said and task != Task.NSFW and event.get("said"):
        sure = [said["confidence"] for said in event["said"] if said.get("confidence") is not None]
        item.state, item.confidence = State.LABELED, max(sure, default=None)
    else:
        item.state = State.FAILED
        item.detail = str(event.get("detail") or "The model said nothing of it.")[:LONGEST_DETAIL]
