"""A claim on one job: the only way to write to a job that runs."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error as DatabaseError
from django.db.models import F

from imagehub.database import drop_connections
from imagehub.errors import ImageHubError, NotNow
from imagehub.jobs import presence, stopping
from imagehub.jobs.models import LEASE, NOTHING_TO_COME, Job, JobQuerySet, JobStatus, lease_end
from imagehub.jobs.reaper import reap_now_and_then
from imagehub.redaction import redact

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
"""At most one write a second, and at least one in every lease."""


SAFETY_SECONDS = 5.0
"""So long before its lease ends, a worker that could not renew it lets go."""


class LeaseLost(Exception):
    """The job was given to somebody else, or taken away. Nothing more may be written."""


class JobCancelled(Exception):
    """Somebody asked to cancel the job."""


class WorkerStopping(Exception):
    """The cluster is ending; the job goes back to the queue."""


class WorkerUnfit(Exception):
    """This worker cannot do any job of the kind now. The job goes back, and the worker takes a rest."""


class JobFailed(ImageHubError):
    """The job cannot be done, for a reason its owner can understand."""

    def __init__(self, code: str, detail: str, *, trace: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.trace = trace


class JobInterrupted(JobFailed):
    """What did the work was lost, perhaps through no fault of the job: it deserves another attempt, if it has one left.

    ``is_counted`` is false where it was surely not the job's fault; then this attempt counts as none.
    """

    def __init__(self, code: str, detail: str, *, trace: str = "", is_counted: bool = True) -> None:
        super().__init__(code, detail, trace=trace)
        self.is_counted = is_counted


@contextmanager
def told_as_failures() -> Iterator[None]:
    """Let whatever is anticipated end the job with its code and its sentence.

    Raises:
        JobInterrupted: it may be possible in a moment, said a ``NotNow``.
        JobFailed: what another ``ImageHubError`` said.
    """
    try:
        yield
    except JobFailed:
        raise
    except NotNow as error:
        raise JobInterrupted(error.code, str(error)) from error
    except ImageHubError as error:
        raise JobFailed(error.code, str(error)) from error


class Lease:
    """The right to write to one running job, fenced by a token.

    Every write is conditional on the token, so a worker that was given up for dead changes nothing.
    """

    def __init__(self, job: Job) -> None:
        self.job_id = job.pk
        self._jobs: JobQuerySet[Any] = type(job)._default_manager.filter(pk=job.pk, token=job.token)
        self._last_beat = self._last_renewal = time.monotonic()
        self._unsaved: dict[str, Any] = {}
        self._started = time.monotonic()
        self._share_before: float | None = None
        self.cancel_requested = False
        self.renewal: Callable[[], None] | None = None
        """What a beat does in place of :meth:`renew`: a job that has rows to write does it in one transaction with them."""

    def report(
        self,
        *,
        step: int,
        total_steps: int,
        message: str = "",
        done: float | None = None,
        eta_seconds: float | None = None,
    ) -> None:
        """Note progress; it is written with the next beat.

        Args:
            step: the one that is done.
            total_steps: how many there will be.
            message: what it is busy with.
            done: the finished share, from 0 to 1, if not that of the steps.
            eta_seconds: until it ends, if the work itself can tell.
        """
        share = min(max(done if done is not None else step / max(total_steps, 1), 0.0), 1.0)
        if self._share_before is None:
            self._share_before = share  # what an earlier attempt has done took none of this one's time
        done_here = share - self._share_before
        elapsed = time.monotonic() - self._started
        left = round(elapsed * (1 - share) / done_here, 1) if done_here > 0 else None
        self._unsaved |= {
            "step": step,
            "total_steps": total_steps,
            "message": message[:200],
            "progress": int(share * 100),
            "eta_seconds": round(eta_seconds, 1) if eta_seconds is not None else left,
        }

    def note(self, **values: Any) -> None:
        """Note values of the job's own columns; they are written with the next beat, or when it ends."""
        self._unsaved |= values

    def beat(self) -> None:
        """Extend the lease and write progress, at most once a second.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        now = time.monotonic()
        if now - self._last_beat < BEAT_SECONDS:
            return
        try:
            (self.renewal or self.renew)()
            self._last_renewal = now
            presence.stamp()
            reap_now_and_then()
        except DatabaseError as error:
            # A database that is away for a moment is no reason to lose the work, as long as the lease holds.
            if now - self._last_renewal > LEASE.total_seconds() - SAFETY_SECONDS:
                raise
            logger.warning("The database did not answer a heartbeat (%s)", type(error).__name__)
            drop_connections()

    @property
    def silent_seconds(self) -> float:
        """How long ago the worker tried to extend it, or claimed the job."""
        return time.monotonic() - self._last_beat

    def extend(self) -> bool:
        """Extend the lease and write nothing else; tell whether the job is still ours. May be called from any thread."""
        now = time.monotonic()
        is_ours = bool(self._jobs.filter(status=JobStatus.RUNNING).update(lease_until=lease_end()))
        if is_ours:
            self._last_renewal = now
        return is_ours

    def hold(self) -> None:
        """Extend the lease, and fence with it what else the transaction writes. May be called from any thread.

        Raises:
            LeaseLost: the job is no longer ours; the transaction must not commit.
        """
        if not self.extend():
            raise LeaseLost

    def renew(self) -> None:
        """Extend the lease now. Inside a transaction it also fences what else the transaction writes.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        self._last_beat = time.monotonic()
        unsaved, self._unsaved = self._unsaved, {}
        if not self._jobs.filter(status=JobStatus.RUNNING).update(lease_until=lease_end(), **unsaved):
            raise LeaseLost
        self.cancel_requested = self._jobs.filter(cancel_requested_at__isnull=False).exists()

    def should_stop(self) -> bool:
        """Beat, and tell whether the work should end early: cancelled, or the cluster is stopping.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        self.beat()
        return self.cancel_requested or stopping.stop_requested()

    def raise_if_stopping(self) -> None:
        """Beat, and turn a request to stop into its exception.

        Raises:
            LeaseLost: the job is no longer ours.
            JobCancelled: somebody asked to cancel it.
            WorkerStopping: the cluster is ending.
        """
        if self.should_stop():
            raise JobCancelled if self.cancel_requested else WorkerStopping

    def complete(self, **changes: Any) -> None:
        """End the job well. Call it in the transaction that writes the last result.

        Raises:
            LeaseLost: the job is no longer ours; the transaction must not commit.
        """
        changes = self._unsaved | {"progress": 100, "eta_seconds": 0.0, "message": ""} | changes
        self._end(JobStatus.COMPLETED, **changes)

    def cancel(self) -> None:
        self._end(JobStatus.CANCELLED, **self._unsaved | NOTHING_TO_COME)

    def fail(self, code: str, detail: str, *, trace: str = "") -> None:
        self._end(
            JobStatus.FAILED,
            **self._unsaved
            | NOTHING_TO_COME
            | {"error_code": code, "error_detail": detail[:1000], "error_trace": redact(trace)[-20_000:]},
        )

    def retry(self) -> None:
        """Return the job to the queue for its next attempt, at the place it had."""
        self._requeue()

    def hand_back(self, message: str = "") -> None:
        """Return the job to the queue. It was not the job's fault, so it does not count as an attempt."""
        self._requeue(attempt=F("attempt") - 1, message=message)

    def _requeue(self, **changes: Any) -> None:
        """Put the job back, unless somebody has asked to cancel it: then it ends as it was asked to."""
        if not self._jobs.requeue(eta_seconds=None, **changes):
            self.cancel()

    def _end(self, status: JobStatus, **changes: Any) -> None:
        if not self._jobs.move(JobStatus.RUNNING, status, **changes):
            raise LeaseLost
