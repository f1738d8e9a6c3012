"""Labeling jobs: taken in, and cancelled. What a worker does with them is :mod:`training.services.labeling_work`."""

import importlib.util
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Exists, OuterRef

from albums.batches import in_batches
from albums.models import Image
from imagehub import roots
from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.config_schema import LabelingConfig
from imagehub.errors import Conflict, NotReady
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import ring
from imagehub.operations.walking import delete_in_pieces, older_than
from training.labeler.findings import NUDENET, STARTER
from training.models import LabelingItem, LabelingJob
from training.pipelines.references import HUB_ID
from training.services.places import place_of

BATCH = 500

Task = LabelingJob.Task


class NoLabelingModel(NotReady):
    code = "no_labeling_model"
    title = "There is no model for this"


class NothingToLabel(NotReady):
    code = "nothing_to_label"
    title = "There are no images to label"


class TooManyToLabel(NotReady):
    code = "too_many_images"
    title = "Too many images for one job"


class LabelingFinished(Conflict):
    code = "already_finished"
    title = "The job has finished"


@dataclass(frozen=True)
class ChosenModel:
    """The model that the configuration names for a task, and where it is found."""

    name: str
    """What labels call it, for everybody to read: a hub id, or its place as seen from the models root."""
    source: str
    """What the program of the labeler is told. A path of this machine stands nowhere else."""
    is_on_hub: bool = False


def submit_labeling(
    *, owner: User, task: str, image_ids: Iterable[uuid.UUID], overwrite: bool = False
) -> LabelingJob:
    """Queue a job that has a model look at images, each once; those in the trash are left out.

    Args:
        owner: who asks.
        task: a ``LabelingJob.Task``.
        image_ids: which images.
        overwrite: whether what people have said gives way.

    Raises:
        NoLabelingModel: the configuration names none for the task, or one that is not there.
        NothingToLabel: none of the images is there.
        TooManyToLabel: there are more than one job may have.
    """
    model = choose_model(task)
    wanted = list(dict.fromkeys(image_ids))
    most = get_config().labeling.max_images
    if len(wanted) > most:
        raise TooManyToLabel(f"One job labels at most {most} images; these are {len(wanted)}.")
    live = {
        pk
        for batch in in_batches(wanted)
        for pk in Image.objects.live().filter(pk__in=batch).values_list("pk", flat=True)
    }
    wanted = [pk for pk in wanted if pk in live]
    if not wanted:
        raise NothingToLabel("None of the images is there, or all of them are in the trash.")
    with transaction.atomic():
        job = LabelingJob.objects.create(
            owner=owner,
            task=task,
            model=model.name,
            overwrite=overwrite,
            total=len(wanted),
            total_steps=len(wanted),
        )
        LabelingItem.objects.bulk_create(
            (LabelingItem(job=job, position=position, image_id=pk) for position, pk in enumerate(wanted)),
            batch_size=BATCH,
        )
        LabelingJob.objects.filter(pk=job.pk).enqueue()
        ring(Cluster.TRAINING)
    job.refresh_from_db()
    return job


def cancel_labeling(job: LabelingJob) -> LabelingJob:
    """Cancel a job: one that waits ends at once, one that runs is asked to stop. What was labeled stays so.

    Raises:
        LabelingFinished: there is nothing left to cancel.
    """
    with transaction.atomic():
        before = {"status": job.status}
        reached = LabelingJob.objects.filter(pk=job.pk).request_cancel()
        job.refresh_from_db()
        if reached:
            audit.record("labelingjob.cancel", job, before=before, after={"status": job.status})
    if not reached:
        raise LabelingFinished(f"The job is {job.status} already.")
    return job


def choose_model(task: str) -> ChosenModel:
    """Return the model that the configuration names for a task.

    Raises:
        NoLabelingModel: it names none, or one that is neither here nor on the hub.
    """
    return find_model(task, configured_name(task, get_config().labeling))


def find_model(task: str, name: str) -> ChosenModel:
    """Return a model by the name that the configuration has for it.

    Raises:
        NoLabelingModel: there is none of this name.
    """
    setting = f"labeling.{SETTINGS[Task(task)]}"
    if not name:
        raise NoLabelingModel(f"No model is configured for this: {setting} names none.")
    if name == STARTER:
        return ChosenModel(name, STARTER)
    if name == NUDENET:
        if task != Task.NSFW:
            raise NoLabelingModel("nudenet only tells what is unfit for everybody.")
        if importlib.util.find_spec("nudenet") is None:
            raise NoLabelingModel(
                "The optional package nudenet (requirements-labeling.txt) is not installed."
            )
        return ChosenModel(name, NUDENET)
    path = place_of(name)
    if path is not None and path.is_dir():
        return ChosenModel(str(path.relative_to(roots.models_root().resolve())), str(path))
    if HUB_ID.fullmatch(name):
        return ChosenModel(name, name, is_on_hub=True)
    raise NoLabelingModel(f"The model that {setting} names is not under the models root.")


def counts_of(jobs: Sequence[LabelingJob]) -> dict[uuid.UUID, dict[str, int]]:
    """Return for each job how many of its images are in each state, by one query for all."""
    counts = {job.pk: dict.fromkeys(LabelingItem.State.values, 0) for job in jobs}
    found = LabelingItem.objects.filter(job__in=counts).values_list("job", "state")
    for job, state, count in found.annotate(count=Count("pk")).order_by():
        counts[job][state] = count
    return counts


def forget_items(*, cutoff: datetime, is_dry_run: bool, on_progress: Callable[[], None]) -> int:
    """Delete what became of each image in jobs that ended before; return of how many images. The jobs stay."""
    forgotten = 0
    told = LabelingJob.objects.filter(Exists(LabelingItem.objects.filter(job=OuterRef("pk"))))
    for jobs in older_than(told, cutoff, by="finished_at"):
        for job in jobs:
            items = LabelingItem.objects.filter(job=job)
            if is_dry_run:
                forgotten += items.count()
            else:
                forgotten += delete_in_pieces(items, by="position", on_progress=on_progress)
    return forgotten


SETTINGS: dict[Task, str] = {Task.CAPTION: "captioner", Task.TAG: "tagger", Task.NSFW: "nsfw"}
"""The fields of the configuration that name models."""


def configured_name(task: str, config: LabelingConfig) -> str:
    """Return what the configuration calls the model for a task; nothing where it names none."""
    return str(getattr(config, SETTINGS[Task(task)]))
