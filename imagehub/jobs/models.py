"""What all long work has in common: a row that tells the truth about it.

A message on the queue is only a doorbell. Every change of a job's state is one conditional UPDATE, so
an illegal transition changes no row, on SQLite as on PostgreSQL, from any number of machines.
"""

import random
import time
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from enum import nonmember
from heapq import heapify, heappop, heappush
from typing import Any, Self, TypeVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connections, models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from imagehub.context import current_request_id
from imagehub.identifiers import new_id

LEASE = timedelta(seconds=20)
"""How long a claim holds without a sign of life."""

CLAIM_SECONDS = 1.0
"""How long a worker tries for a row that others hold."""

NEVER = datetime.min.replace(tzinfo=UTC)


class JobStatus(models.TextChoices):
    """Where a job stands. ``TRANSITIONS`` lists every change there is."""

    PENDING = "pending", "Pending"
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"

    ACTIVE = nonmember(("pending", "queued", "running"))
    FINISHED = nonmember(("completed", "failed", "cancelled"))


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED}
    ),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
"""Kinds that can be resumed allow one more: see ``Job.RESUMABLE``."""


def lease_end() -> Any:
    """Return the moment a lease taken now ends, by the database's clock: machines may disagree about the time."""
    return models.ExpressionWrapper(Now() + LEASE, output_field=models.DateTimeField())


J = TypeVar("J", bound="Job")


class JobQuerySet(models.QuerySet[J]):
    """Reading jobs, and the conditional UPDATEs that change their status."""

    def active(self) -> Self:
        return self.filter(status__in=JobStatus.ACTIVE)

    def queued(self) -> Self:
        return self.filter(status=JobStatus.QUEUED)

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-id")

    def expired(self) -> Self:
        """Jobs whose worker has given no sign of life for a lease."""
        return self.filter(status=JobStatus.RUNNING, lease_until__lt=Now())

    def move(self, source: JobStatus, target: JobStatus, **changes: Any) -> int:
        """Change the status of these jobs where they stand at ``source``; return how many did.

        Raises:
            ValueError: the life cycle knows no such transition.
        """
        allowed = target in TRANSITIONS[source] or (
            self.model.RESUMABLE
            and source in {JobStatus.FAILED, JobStatus.CANCELLED}
            and target == JobStatus.QUEUED
        )
        if not allowed:
            raise ValueError(f"A job cannot go from {source} to {target}.")
        if target in JobStatus.FINISHED:
            changes = {"finished_at": Now(), "token": None, "lease_until": None} | changes
        elif target == JobStatus.QUEUED:
            changes = {
                "token": None,
                "lease_until": None,
                "finished_at": None,
                "cancel_requested_at": None,
            } | changes
        return self.filter(status=source).update(status=target, **changes)

    def enqueue(self) -> int:
        """Make pending jobs ready to be claimed."""
        return self.move(JobStatus.PENDING, JobStatus.QUEUED, queued_at=Now())

    def next_owner(self) -> tuple[int, int] | None:
        """Return the priority and the owner to serve next, or None when nothing is queued."""
        top = self.queued().order_by("-priority").values_list("priority", flat=True).first()
        if top is None:
            return None
        waiting = dict(
            self.queued()
            .filter(priority=top)
            .values_list("owner_id")
            .annotate(oldest=models.Min("queued_at"))
            .order_by("owner_id")
        )
        served = OwnerTurn.objects.served_at(self.model)
        return min(
            ((top, owner) for owner in waiting),
            key=lambda choice: (served.get(choice[1], NEVER), waiting[choice[1]]),
            default=None,
        )

    def queue_positions(self) -> dict[uuid.UUID, int]:
        """Return the place of every queued job, 1 being the next to be claimed.

        This plays the claims through as they would happen if nothing else came in.
        """
        served = OwnerTurn.objects.served_at(self.model)
        lanes: dict[int, dict[int, deque[tuple[int, uuid.UUID]]]] = {}
        rows = self.model._default_manager.queued().order_by("queued_at", "id")
        for age, (pk, priority, owner) in enumerate(rows.values_list("pk", "priority", "owner_id")):
            lanes.setdefault(-priority, {}).setdefault(owner, deque()).append((age, pk))
        positions: dict[uuid.UUID, int] = {}
        turns: dict[int, int] = {}  # the place at which an owner was served last in this play
        for _, waiting in sorted(lanes.items()):
            heap = [
                (turns.get(owner, 0), served.get(owner, NEVER), queue[0], owner)
                for owner, queue in waiting.items()
            ]
            heapify(heap)
            while heap:
                _, last, (_, pk), owner = heappop(heap)
                positions[pk] = turns[owner] = len(positions) + 1
                waiting[owner].popleft()
                if waiting[owner]:
                    heappush(heap, (turns[owner], last, waiting[owner][0], owner))
        return positions

    def claim(self, *, worker: str) -> J | None:
        """Take the next queued job, or return None when none is left.

        Priority goes first, then the owner who was served least recently, then age. One conditional UPDATE
        is the lock: of many workers exactly one changes the row. An UPDATE that changes nothing means a lost race and
        not an empty queue, so it looks again while queued rows exist; after a second of that the next doorbell will do.
        """
        deadline = time.monotonic() + CLAIM_SECONDS
        while time.monotonic() < deadline and (choice := self.next_owner()) is not None:
            priority, owner = choice
            token = uuid.uuid4()
            oldest = (
                self.queued()
                .filter(priority=priority, owner=owner)
                .order_by("queued_at", "id")
                .values("pk")[:1]
            )
            with transaction.atomic(using=self.db):
                if connections[self.db].features.has_select_for_update_skip_locked:
                    oldest = oldest.select_for_update(skip_locked=True)
                claimed = self.filter(pk=models.Subquery(oldest)).move(
                    JobStatus.QUEUED,
                    JobStatus.RUNNING,
                    token=token,
                    lease_until=lease_end(),
                    attempt=F("attempt") + 1,
                    worker=worker,
                    started_at=Now(),
                )
                if claimed:
                    OwnerTurn.objects.take(self.model, owner)
                    return self.select_related("owner").get(token=token)
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - only keeps the losers of a race apart
        return None

    def request_cancel(self) -> int:
        """Cancel these jobs: those that wait end at once, those that run are asked. Returns how many had not ended.

        One UPDATE, so that a job which changes hands at this moment cannot slip through.
        """
        is_running = Q(status=JobStatus.RUNNING)
        return self.active().update(
            status=Case(When(is_running, then=F("status")), default=Value(JobStatus.CANCELLED)),
            finished_at=Case(When(is_running, then=None), default=Now()),
            cancel_requested_at=Coalesce("cancel_requested_at", Now()),
        )

    def requeue(self, **changes: Any) -> int:
        """Put running jobs back in the queue, but for those that somebody asked to cancel."""
        return self.filter(cancel_requested_at=None).move(JobStatus.RUNNING, JobStatus.QUEUED, **changes)

    def reap(self) -> int:
        """Take jobs from workers that were lost; return how many.

        They go back to the queue, unless somebody asked to cancel them or they have used up their attempts:
        a job that kills its worker must not come round for ever.
        """
        lost = self.expired()
        cancelled = lost.filter(cancel_requested_at__isnull=False).move(
            JobStatus.RUNNING, JobStatus.CANCELLED
        )
        failed = lost.filter(attempt__gte=F("max_attempts")).move(
            JobStatus.RUNNING,
            JobStatus.FAILED,
            error_code="worker_lost",
            error_detail="The worker was lost too often while it did this job.",
        )
        return cancelled + failed + lost.requeue(eta_seconds=None)


class Job(models.Model):
    """One piece of long work."""

    RESUMABLE = False
    """Whether a failed or cancelled job of this kind may be queued again."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    status = models.CharField(max_length=10, choices=JobStatus, default=JobStatus.PENDING)
    priority = models.SmallIntegerField(default=0, help_text="Higher goes first.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")

    request_id = models.CharField(
        max_length=64,
        blank=True,
        default=current_request_id,
        editable=False,
        help_text="Of the request that made it.",
    )

    attempt = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3, validators=[MinValueValidator(1)])
    worker = models.CharField(max_length=200, blank=True, help_text="Host and process that claimed it last.")
    token = models.UUIDField(
        null=True, blank=True, unique=True, editable=False, help_text="Fence: only its holder may write."
    )
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)

    progress = models.PositiveSmallIntegerField(default=0, validators=[MaxValueValidator(100)])
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    message = models.CharField(max_length=200, blank=True)
    eta_seconds = models.FloatField(null=True, blank=True)

    error_code = models.CharField(max_length=50, blank=True)
    error_detail = models.CharField(max_length=1000, blank=True, help_text="A sentence for the owner.")
    error_trace = models.TextField(blank=True, help_text="For staff only.")

    # Not the database's clock: SQLite would store milliseconds, and a cursor made of them meets its own row again.
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    queued_at = models.DateTimeField(null=True, blank=True, editable=False)
    started_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)
    cancel_requested_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = JobQuerySet.as_manager()

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(name="%(class)s_progress_is_percent", condition=Q(progress__lte=100)),
            models.CheckConstraint(
                name="%(class)s_finished_at_iff_finished",
                condition=Q(status__in=JobStatus.FINISHED, finished_at__isnull=False)
                | Q(status__in=JobStatus.ACTIVE, finished_at__isnull=True),
            ),
            models.CheckConstraint(
                name="%(class)s_leased_iff_running",
                condition=Q(status=JobStatus.RUNNING, token__isnull=False, lease_until__isnull=False)
                | (~Q(status=JobStatus.RUNNING) & Q(token__isnull=True, lease_until__isnull=True)),
            ),
        ]
        indexes = [
            # Serves the claim: the queue is read in this order, one owner at a time.
            models.Index(fields=["status", "-priority", "owner", "queued_at", "id"], name="%(class)s_claim"),
            models.Index(fields=["-created_at", "-id"], name="%(class)s_newest"),
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"

    def sensitive_texts(self) -> tuple[str, ...]:
        """Return what must not stand in a log line: prompts, captions."""
        return ()

    @property
    def is_finished(self) -> bool:
        return self.status in JobStatus.FINISHED


class OwnerTurnQuerySet(models.QuerySet["OwnerTurn"]):
    def served_at(self, model: type[Job]) -> dict[int, datetime]:
        """Return when each owner's jobs of one kind were last taken up."""
        return dict(self.filter(kind=model._meta.label_lower).values_list("owner_id", "served_at"))

    def take(self, model: type[Job], owner: int) -> None:
        """Note that an owner is served now."""
        self.bulk_create(
            [OwnerTurn(kind=model._meta.label_lower, owner_id=owner, served_at=Now())],
            update_conflicts=True,
            unique_fields=["kind", "owner"],
            update_fields=["served_at"],
        )


class OwnerTurn(models.Model):
    """When somebody's job of one kind was last taken up, so that nobody's queue starves another's."""

    kind = models.CharField(max_length=100)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    served_at = models.DateTimeField()

    objects = OwnerTurnQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(name="jobs_one_turn_per_owner", fields=["kind", "owner"])]

    def __str__(self) -> str:
        return f"{self.owner_id} in {self.kind} at {self.served_at}"


class WorkerPresence(models.Model):
    """One running cluster. Its workers stamp ``seen_at`` whenever they answer a doorbell or work on a job.

    The stamp comes from the far end of the whole path (message, pusher, worker, database), so a cluster that
    looks alive but takes no messages goes stale too.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    cluster = models.CharField(max_length=20)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField(help_text="The cluster's main process.")
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["cluster", "seen_at"], name="jobs_presence_cluster")]

    def __str__(self) -> str:
        return f"{self.cluster} on {self.host}, process {self.pid}"
