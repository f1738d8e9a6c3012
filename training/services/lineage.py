"""Training runs in the graph of where things come from.

    image ──── run ── adapter
    base model ─┘ │
                  └── run       (a clone)

Images and adapters are described elsewhere; what is learned from an image is reached through them, for whoever takes one
down.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import transaction

from albums.image_lineage import IMAGE
from albums.lineage import Edge, Key, Kind, Node, register_kind, register_links
from albums.models import may_see_everything
from imagehub.accounts import audit
from training.models import Adapter, DatasetImage, TrainingRun
from training.services.promoting import end_promotions
from training.services.run_folders import delete_pictures

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

RUN, BASE_MODEL, ADAPTER = "training_run", "base_model", "adapter"

SHOWN = ("status", "config_sha256", "training_loss", "validation_loss")


def register() -> None:
    """Add them to the graph."""
    register_kind(Kind(RUN, _describe, _cancel))
    register_links(IMAGE, results=_runs_that_learn_from)
    register_links(RUN, origins=_what_runs_used, results=_what_came_of_runs)
    register_links(ADAPTER, origins=_runs_that_made)


def _describe(ids: Sequence[str], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    """Yield runs: everybody may know that they are, staff also how they went."""
    sees_everything = may_see_everything(user)
    for run in TrainingRun.objects.filter(pk__in=ids).select_related("owner", "dataset"):
        details: dict[str, Any] = {"status": run.status}
        if sees_everything:
            details = {name: getattr(run, name) for name in SHOWN}
            details |= {
                "dataset_sha256": run.dataset.sha256,
                "albums": run.dataset.albums,
                "owner": run.owner.username,
            }
        yield Node(Key(RUN, str(run.pk)), run.name, f"/api/training/{run.pk}", details)


def _runs_that_learn_from(ids: Sequence[str]) -> Iterator[Edge]:
    learned = DatasetImage.objects.filter(image__in=ids, dataset__runs__isnull=False)
    for image, run in learned.values_list("image_id", "dataset__runs").distinct().iterator():
        yield Edge(Key(IMAGE, str(image)), Key(RUN, str(run)), "learned")


def _what_runs_used(ids: Sequence[str]) -> Iterator[Edge]:
    runs = TrainingRun.objects.filter(pk__in=ids)
    for pk, base_model, cloned_from in runs.values_list("pk", "base_model_id", "cloned_from_id"):
        yield Edge(Key(BASE_MODEL, str(base_model)), Key(RUN, str(pk)), "used")
        if cloned_from:
            yield Edge(Key(RUN, str(cloned_from)), Key(RUN, str(pk)), "cloned")
    learned = DatasetImage.objects.filter(dataset__runs__in=ids, image__isnull=False)
    for image, run in learned.values_list("image_id", "dataset__runs").distinct().iterator():
        if str(run) in ids:
            yield Edge(Key(IMAGE, str(image)), Key(RUN, str(run)), "learned")


def _what_came_of_runs(ids: Sequence[str]) -> Iterator[Edge]:
    for adapter, run, step in Adapter.objects.filter(training_run__in=ids).values_list(
        "pk", "training_run_id", "training_step"
    ):
        yield Edge(Key(RUN, str(run)), Key(ADAPTER, str(adapter)), "made", details={"step": step})
    clones = TrainingRun.objects.filter(cloned_from__in=ids).values_list("pk", "cloned_from_id")
    for clone, run in clones.iterator():
        yield Edge(Key(RUN, str(run)), Key(RUN, str(clone)), "cloned")


def _runs_that_made(ids: Sequence[str]) -> Iterator[Edge]:
    adapters = Adapter.objects.filter(
        pk__in=[pk for pk in map(_as_id, ids) if pk], training_run__isnull=False
    )
    for adapter, run, step in adapters.values_list("pk", "training_run_id", "training_step"):
        yield Edge(Key(RUN, str(run)), Key(ADAPTER, str(adapter)), "made", details={"step": step})


def _cancel(ids: Sequence[str], reason: str) -> int:
    """Cancel runs that have not ended, without saving: nothing more is to be learned from what is taken down.

    Nor is an adapter to be made of what was learned already; and the pictures that lie in their folders go.
    """
    runs = TrainingRun.objects.filter(pk__in=ids)
    waiting = list(runs.active().filter(cancel_requested_at=None))
    with transaction.atomic():
        runs.active().locked_in_order().update(stop_mode=TrainingRun.StopMode.DISCARD)
        runs.request_cancel()
        end_promotions(ids, "The run was taken down.")
        for run in runs:
            transaction.on_commit(partial(delete_pictures, run), robust=True)
    for run in waiting:
        audit.record("trainingrun.cancel", run, before={"status": run.status}, after={"reason": reason})
    return len(waiting)


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:  # adapters are named by plain data
        return None
