"""What a worker does when its doorbell rings: claim a job, do it, record how it ended, claim the next."""

import logging
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import Error as DatabaseError

from imagehub.context import at_work
from imagehub.database import drop_connections
from imagehub.jobs import presence, stopping
from imagehub.jobs.clusters import SLICE_SECONDS, Cluster
from imagehub.jobs.heart import Heart
from imagehub.jobs.lease import (
    JobCancelled,
    JobFailed,
    JobInterrupted,
    Lease,
    LeaseLost,
    WorkerStopping,
    WorkerUnfit,
)
from imagehub.jobs.models import Job, JobStatus
from imagehub.jobs.queue import ring
from imagehub.jobs.reaper import reap_now_and_then
from imagehub.jobs.registry import JobKind, kinds
from imagehub.room import lack_of_room

logger = logging.getLogger(__name__)

REST_SECONDS = 10.0

FACTS_SECONDS = 5.0
"""How old what a worker tells of itself may be."""

_warm: dict[str, set[Any]] = {}
"""By kind, what this process has dealt with last: see ``JobKind.affinity``."""


@dataclass(frozen=True)
class Taken:
    """A job that was claimed, and what keeps it ours."""

    kind: JobKind
    job: Job
    lease: Lease
    heart: Heart


_without_room: dict[str, str] = {}
"""The kinds of job that this worker does not take, because a disk is full, and the sentence that says so."""

_unfinished: tuple[Taken, Callable[[], None]] | None = None
"""A job of which something is left to do, such as storing its last result, and what does that."""

_facts_told_at = float("-inf")


def finish_previous() -> None:
    """Do what the job before this one has left to do, and record how it ended. Harmless when nothing is left.

    A job calls it as soon as something else works for it, so that neither waits for the other. Nothing stays undone:
    it is called after every job that did not, and whenever no job is left.
    """
    global _unfinished
    previous, _unfinished = _unfinished, None
    if previous is not None:
        taken, rest = previous
        _do(taken, rest)
        _tell_facts(taken.kind.cluster)


def work_off(cluster: Cluster) -> int:
    """Do the cluster's jobs until none is left, the time slice ends, or the cluster is stopping.

    Returns the number of jobs taken. When the slice ends first, the doorbell is rung again.
    """
    deadline = time.monotonic() + SLICE_SECONDS
    taken = 0
    presence.stamp()
    reap_now_and_then()
    _tell_facts(cluster)
    try:
        while not stopping.stop_requested():
            if time.monotonic() >= deadline:
                ring(cluster)
                break
            done = sum([run_next(kind) for kind in kinds(cluster=cluster)])
            if not done:
                break
            taken += done
            presence.stamp()
    finally:
        finish_previous()
    return taken


def _tell_facts(cluster: Cluster, *, at_once: bool = False) -> None:
    """Publish what the kinds of a cluster say of themselves, now and then."""
    global _facts_told_at
    if not at_once and time.monotonic() - _facts_told_at < FACTS_SECONDS:
        return
    _facts_told_at = time.monotonic()
    tellers = [kind.facts for kind in kinds(cluster=cluster) if kind.facts is not None]
    try:
        facts = {name: fact for tell in tellers for name, fact in tell().items()}
        presence.publish(facts | ({presence.WITHOUT_ROOM: _without_room} if _without_room else {}))
    except Exception as error:  # noqa: BLE001 - no job may fail for it
        logger.warning("This worker could not tell what it has (%s)", type(error).__name__)


def run_next(kind: JobKind) -> bool:
    """Claim and run one job of a kind; tell whether there was one."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    job = None
    if _has_room(kind):
        job = kind.model._default_manager.claim(worker=worker, warm=_warm.get(kind.name, ()))
    if job is None:
        finish_previous()
        return False
    if kind.affinity is not None:
        _warm[kind.name] = {getattr(job, kind.affinity)}
    run_claimed(kind, job)
    return True


def _has_room(kind: JobKind) -> bool:
    """Tell whether there is room for what a job of a kind writes. Else it waits: begun, it would only fail."""
    problem = lack_of_room(kind.writes_to)
    if problem == _without_room.get(kind.name, ""):
        return not problem
    if problem:
        logger.warning("No %s jobs are taken: %s", kind.name, problem)
        _without_room[kind.name] = problem
    else:
        logger.info("There is room for %s jobs again", kind.name)
        del _without_room[kind.name]
    _tell_facts(kind.cluster, at_once=True)  # the job that begins now may take hours
    return not problem


def run_claimed(kind: JobKind, job: Job) -> None:
    """Do one claimed job and record how it ended, or keep what is left of it for later. Never raises for what it did."""
    global _unfinished
    lease = Lease(job)
    taken = Taken(kind, job, lease, Heart(lease))
    try:
        rest = _do(taken, lambda: kind.perform(job, lease))
    finally:
        finish_previous()
    if rest is not None:
        _unfinished = taken, rest


def _do(taken: Taken, work: Callable[[], Callable[[], None] | None]) -> Callable[[], None] | None:
    """Do some of a job; return what is left of it. How it ended is recorded where nothing is."""
    job, rest = taken.job, None
    facts = {"kind": taken.kind.name, "user": job.owner.email}
    with at_work(request=job.request_id, job=str(job.pk), facts=lambda: facts, sensitive=job.sensitive_texts):
        try:
            rest = _perform(taken, work)
        except LeaseLost:
            logger.warning("Job %s was taken away; what it did last was not written", job.pk)
        finally:
            if rest is None:
                taken.heart.stop()
    return rest


def _perform(taken: Taken, work: Callable[[], Callable[[], None] | None]) -> Callable[[], None] | None:
    job, lease = taken.job, taken.lease
    try:
        if (rest := work()) is not None:
            return rest
    except JobCancelled:
        lease.cancel()
    except WorkerStopping:
        lease.hand_back()
    except WorkerUnfit as error:
        logger.error("This worker cannot work: %s", error)
        lease.hand_back(message=str(error))
        _rest()
    except DatabaseError as error:  # its text may quote the rows, and with them prompts
        logger.error("Job %s met a database error: %s", job.pk, type(error).__name__)
        drop_connections()
        _retry(job, lease, JobInterrupted("database_error", "The database failed while the job ran."))
    except JobInterrupted as error:
        _retry(job, lease, error)
    except JobFailed as error:
        logger.warning("Job %s failed: %s", job.pk, error.code)
        lease.fail(error.code, str(error), trace=error.trace)
    except LeaseLost:
        raise
    except SystemExit:  # how Django-Q ends a task that outlives its timeout
        lease.fail("time_limit", "The job took longer than any job may.")
        raise
    except Exception:
        logger.exception("Job %s failed unexpectedly", job.pk)
        lease.fail("internal_error", "Something went wrong inside ImageHub.", trace=traceback.format_exc())
    else:
        if taken.kind.model._default_manager.filter(
            pk=job.pk, status=JobStatus.RUNNING, token=job.token
        ).exists():
            lease.fail("internal_error", "The job ended without a result.")
    return None


def _retry(job: Job, lease: Lease, error: JobInterrupted) -> None:
    if not error.is_counted:
        logger.warning("Job %s lost its work to another one (%s) and is queued again", job.pk, error.code)
        lease.hand_back()
    elif job.attempt < job.max_attempts:
        logger.warning("Job %s was interrupted (%s) and is queued again", job.pk, error.code)
        lease.retry()
    else:
        lease.fail(error.code, str(error), trace=error.trace)


def _rest() -> None:
    """Wait a little before the next claim, so that a worker that cannot work does not turn the queue over."""
    deadline = time.monotonic() + REST_SECONDS
    while time.monotonic() < deadline and not stopping.stop_requested():
        presence.stamp()
        time.sleep(0.5)
