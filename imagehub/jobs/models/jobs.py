"""What all long work has in common: a row that tells the truth about it.

A message on the queue is only a doorbell. Every change of a job's state is one conditional UPDATE, so
an illegal transition changes no row, on SQLite as on PostgreSQL, from any number of machines.
"""

import random
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import nonmember
from typing import Any, Self, TypeVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connections, models, transaction
from django.db.models import Case, Exists, F, Q, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from imagehub.context import current_request_id
from imagehub.database import take_turn
from imagehub.errors import StillBusy
from imagehub.identifiers import new_id
from imagehub.jobs.models.queue import OwnerTurn, QueuePause
from imagehub.jobs.registry import kind_of

LEASE = timedelta(seconds=20)
"""How long a claim holds without a sign of life."""

CLAIM_SECONDS = 1.0
"""How long a worker tries for a row that others hold."""

NEVER = datetime.min.replace(tzinfo=UTC)

AFFINITY_WINDOW = 32
"""So many of the oldest jobs of an owner are looked through for one that suits what a worker has at hand."""

MOST_OVERTAKEN = 16
"""So many younger jobs may go before one for that reason; then it is its turn."""


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


NOTHING_TO_COME: dict[str, Any] = {"eta_seconds": None, "message": ""}
"""What a job that has ended says of what it is busy with, and for how long."""

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

    def locked_in_order(self) -> Self:
        """Lock these jobs in the order of their keys, and return them: whoever changes several of them does it so.

        Of two who change many at once, each might otherwise hold a row that the other wants: PostgreSQL would end one of them.
        A row that changed while we waited is looked at again. Call it in the transaction that changes them.

        Raises:
            TransactionManagementError: there is no transaction.
        """
        if not connections[self.db].features.has_select_for_update:  # SQLite has one writer at a time
            return self
        keys = self.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True)
        return self.filter(pk__in=list(keys))

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
            changes = {"finished_at": Now(), "token": None, "lease_until": None} | NOTHING_TO_COME | changes
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

    def claimable(self) -> Self:
        """Jobs that wait, unless their kind is paused."""
        return self.queued().exclude(Exists(QueuePause.objects.filter(kind=kind_of(self.model).name)))

    def next_owner(self) -> tuple[int, int] | None:
        """Return the priority and the owner to serve next, or None when nothing is queued, or all is paused."""
        top = self.claimable().order_by("-priority").values_list("priority", flat=True).first()
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

    def claim(self, *, worker: str, warm: Collection[Any] = ()) -> J | None:
        """Take the next queued job, or return None when none is left, or all is paused.

        Priority goes first, then the owner who was served least recently, then age. One conditional UPDATE
        is the lock: of many workers exactly one changes the row. An UPDATE that changes nothing means a lost race and
        not an empty queue, so it looks again while queued rows exist; after a second of that, or of waiting for the turn of a
        claim that hangs, the next doorbell will do.

        Args:
            worker: who takes it.
            warm: values of the column that the kind names as its ``affinity``. Among the oldest jobs of the owner one
                with such a value goes first, as long as none of those before it has been overtaken too often.
        """
        deadline = time.monotonic() + CLAIM_SECONDS
        while (left := deadline - time.monotonic()) > 0 and self.claimable().exists():
            with suppress(StillBusy), transaction.atomic(using=self.db):
                if kind_of(self.model).affinity is not None:  # or one might overtake what another passes over
                    take_turn(f"claims of {self.model._meta.label_lower}", using=self.db, wait_seconds=left)
                # Only now: whose turn it is has changed if others have claimed while we waited for ours.
                choice = self.next_owner()
                if choice is None:
                    return None
                if job := self._take(*choice, worker=worker, warm=warm):
                    return job
                transaction.set_rollback(True, using=self.db)  # nobody was overtaken
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - only keeps the losers of a race apart
        return None

    def _take(self, priority: int, owner: int, *, worker: str, warm: Collection[Any]) -> J | None:
        """Take the next job of an owner, in the transaction that is open; return None where somebody was faster."""
        token = uuid.uuid4()
        lane = self.queued().filter(priority=priority, owner=owner).order_by("queued_at", "id")
        oldest = lane.select_for_update(skip_locked=True).values("pk")[:1]
        preferred = lane._overtake(warm) if warm else None
        claimed = (
            self.claimable()
            .filter(pk=preferred or models.Subquery(oldest))
            .move(
                JobStatus.QUEUED,
                JobStatus.RUNNING,
                token=token,
                lease_until=lease_end(),
                attempt=F("attempt") + 1,
                worker=worker,
                started_at=Now(),
            )
        )
        if not claimed:
            return None
        OwnerTurn.objects.take(self.model, owner)
        # By the status as well: an analysed SQLite takes the index of tokens, nearly all null, for useless.
        return self.select_related("owner").get(status=JobStatus.RUNNING, token=token)

    def _overtake(self, warm: Collection[Any]) -> uuid.UUID | None:
        """Choose a job of this lane that suits, count it for those it goes before, and return its key.

        Returns None where the oldest one suits, where none may go first, or where somebody changes one of these rows: then
        the oldest goes. Rows are locked without waiting: who cancels many jobs at once may hold some and want others.
        """
        affinity = kind_of(self.model).affinity
        if affinity is None:
            return None
        before: list[uuid.UUID] = []
        chosen = None
        for pk, value, overtaken in self.values_list("pk", affinity, "overtaken")[:AFFINITY_WINDOW]:
            if value in warm:
                chosen = pk
                break
            if overtaken >= MOST_OVERTAKEN:
                break
            before.append(pk)
        if chosen is None or not before:
            return None
        locked = dict(
            self.filter(pk__in=[*before, chosen])
            .select_for_update(skip_locked=True)
            .values_list("pk", "overtaken")
        )
        if len(locked) <= len(before) or any(locked[pk] >= MOST_OVERTAKEN for pk in before):
            return None
        self.model._default_manager.using(self.db).filter(pk__in=before).update(overtaken=F("overtaken") + 1)
        return chosen

    def request_cancel(self) -> int:
        """Cancel these jobs: those that wait end at once, those that run are asked. Returns how many had not ended.

        One UPDATE of rows that are ours meanwhile, so that a job which changes hands at this moment cannot slip through.
        """
        is_running = Q(status=JobStatus.RUNNING)
        with transaction.atomic(using=self.db):
            return (
                self.active()
                .locked_in_order()
                .update(
                    status=Case(When(is_running, then=F("status")), default=Value(JobStatus.CANCELLED)),
                    finished_at=Case(When(is_running, then=None), default=Now()),
                    message=Case(When(is_running, then=F("message")), default=Value("")),
                    cancel_requested_at=Coalesce("cancel_requested_at", Now()),
                )
            )

    def requeue(self, **changes: Any) -> int:
        """Put running jobs back in the queue, but for those that somebody asked to cancel."""
        return self.filter(cancel_requested_at=None).move(JobStatus.RUNNING, JobStatus.QUEUED, **changes)

    def reap(self) -> int:
        """Take jobs from workers that were lost; return how many.

        They go back to the queue, unless somebody asked to cancel them or they have used up their attempts:
        a job that kills its worker must not come round for ever.
        """
        with transaction.atomic(using=self.db):
            # Without waiting: whoever holds one of them changes it, or leaves it for the next time.
            keys = self.expired().select_for_update(skip_locked=True, no_key=True).values("pk")
            lost = self.filter(pk__in=[row["pk"] for row in keys])
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

    overtaken = models.PositiveSmallIntegerField(
        default=0, editable=False, help_text="How many younger jobs of its owner went before it."
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
            models.Index(
                fields=["-finished_at"], condition=Q(finished_at__isnull=False), name="%(class)s_ended"
            ),
            # How many failed lately, with which code. The condition names no status: SQLite compares it with no parameter.
            models.Index(
                fields=["status", "-finished_at", "error_code"],
                condition=Q(finished_at__isnull=False),
                name="%(class)s_codes",
            ),
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"

    def sensitive_texts(self) -> tuple[str, ...]:
        """Return what must not stand in a log line: prompts, captions."""
        return ()

    @property
    def is_finished(self) -> bool:
        return self.status in JobStatus.FINISHED
