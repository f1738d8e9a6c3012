"""Where a job stands in its queue: what the claims would do if nothing else came in, without playing them through.

Owners take turns, so a job that is the fifth of its owner waits for four rounds, and in the fifth for those whose turn comes
first. For that it is enough to know how many jobs each owner has waiting at each priority. Affinity is not foreseen: a job may
be claimed up to ``MOST_OVERTAKEN`` places later than this says, or earlier.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, F, Min, Q, Subquery, Window
from django.db.models.functions import RowNumber

from imagehub.jobs.models import NEVER, Job, JobStatus, OwnerTurn


@dataclass(frozen=True)
class Lane:
    """The jobs of one priority: how many each owner has, in the order in which owners are served."""

    before: int
    """How many jobs of higher priorities go before all of these."""
    counts: dict[int, int]

    def position(self, owner: int, rank: int) -> int:
        """Return the place in the queue of an owner's job, 1 being the next; ``rank`` is its place among his, from 1."""
        owners = list(self.counts)
        earlier_rounds = sum(min(count, rank - 1) for count in self.counts.values())
        this_round = sum(self.counts[other] >= rank for other in owners[: owners.index(owner) + 1])
        return self.before + earlier_rounds + this_round


def queue_positions(model: type[Job], jobs: Sequence[Job]) -> dict[UUID, int]:
    """Return the places of those of some jobs that wait, 1 being the next to be claimed. Three queries."""
    waiting = [job for job in jobs if job.status == JobStatus.QUEUED and job.queued_at]
    if not waiting:
        return {}
    ranks = _rank_of_one(model, waiting[0]) if len(waiting) == 1 else _ranks(model, waiting)
    lanes = dict(_lanes(model))
    return {
        pk: lanes[priority].position(owner, rank)
        for pk, (priority, owner, rank) in ranks.items()
        if priority in lanes
        and owner in lanes[priority].counts  # it may have been claimed between the queries
    }


Rank = tuple[int, int, int]
"""The priority and the owner of a job, and its place among the owner's of that priority, from 1."""


def _rank_of_one(model: type[Job], job: Job) -> dict[UUID, Rank]:
    """Count those before it: a page of jobs costs one pass over the queue, one job mostly less."""
    lane = model._default_manager.queued().filter(priority=job.priority, owner=job.owner_id)
    # As the row has it: SQLite writes fewer digits where the time is the database's own, and compares texts.
    own = Subquery(model._default_manager.filter(pk=job.pk).values("queued_at"))
    not_after = lane.filter(queued_at__lte=own).exclude(queued_at=own, id__gt=job.pk)
    return {job.pk: (job.priority, job.owner_id, not_after.count() or 1)}


def _ranks(model: type[Job], jobs: Sequence[Job]) -> dict[UUID, Rank]:
    rank = Window(RowNumber(), partition_by=[F("priority"), F("owner")], order_by=["queued_at", "id"])
    numbered = model._default_manager.queued().annotate(rank=rank)
    # Alone, the keys would narrow what is numbered: beside a condition on the number they apply afterwards.
    wanted = numbered.filter(Q(rank__lt=0) | Q(pk__in=[job.pk for job in jobs]))
    return {row[0]: row[1:] for row in wanted.values_list("pk", "priority", "owner_id", "rank")}


def _lanes(model: type[Job]) -> Iterator[tuple[int, Lane]]:
    """Yield each priority with its lane, the highest first."""
    found: dict[int, dict[int, tuple[int, datetime]]] = {}
    grouped = model._default_manager.queued().order_by("-priority", "owner_id")
    for priority, owner, count, oldest in grouped.values_list("priority", "owner_id").annotate(
        count=Count("pk"), oldest=Min("queued_at")
    ):
        found.setdefault(priority, {})[owner] = (count, oldest)
    served = OwnerTurn.objects.served_at(model)
    last_turn: dict[int, int] = {}
    before = 0
    for priority, owners in found.items():
        order = sorted(
            owners,
            key=lambda owner: (last_turn.get(owner, 0), served.get(owner, NEVER), owners[owner][1] or NEVER),
        )
        lane = Lane(before, {owner: owners[owner][0] for owner in order})
        yield priority, lane
        before += sum(lane.counts.values())
        last_turn |= {owner: lane.position(owner, count) for owner, count in lane.counts.items()}
