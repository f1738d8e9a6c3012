"""What a worker does when its doorbell rings: claim a job, do it, record how it ended, claim the next."""

import logging
import os
import socket
import time
import traceback

from django.db import Error as DatabaseError

from imagehub.context import at_work
from imagehub.database import drop_connections
from imagehub.jobs import presence, stopping
from imagehub.jobs.clusters import SLICE_SECONDS, Cluster
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

logger = logging.getLogger(__name__)

REST_SECONDS = 10.0


def work_off(cluster: Cluster) -> int:
    """Do the cluster's jobs until none is left, the time slice ends, or the cluster is stopping.

    Returns the number of jobs taken. When the slice ends first, the doorbell is rung again.
    """
    deadline = time.monotonic() + SLICE_SECONDS
    taken = 0
    presence.stamp()
    reap_now_and_then()
    while not stopping.stop_requested():
        if time.monotonic() >= deadline:
            ring(cluster)
            break
        done = sum([run_next(kind) for kind in kinds(cluster=cluster)])
        if not done:
            break
        taken += done
        presence.stamp()
    return taken


def run_next(kind: JobKind) -> bool:
    """Claim and run one job of a kind; tell whether there was one."""
    job = kind.model._default_manager.claim(worker=f"{socket.gethostname()}:{os.getpid()}")
    if job is None:
        return False
    run_claimed(kind, job)
    return True


def run_claimed(kind: JobKind, job: Job) -> None:
    """Do one claimed job and record how it ended. Never raises for what the job did."""
    facts = {"kind": kind.name, "user": job.owner.email}
    with at_work(request=job.request_id, job=str(job.pk), facts=lambda: facts, sensitive=job.sensitive_texts):
        try:
            _perform(kind, job, Lease(job))
        except LeaseLost:
            logger.warning("Job %s was taken away; what it did last was not written", job.pk)


def _perform(kind: JobKind, job: Job, lease: Lease) -> None:
    try:
        kind.perform(job, lease)
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
        if kind.model._default_manager.filter(pk=job.pk, status=JobStatus.RUNNING, token=job.token).exists():
            lease.fail("internal_error", "The job ended without a result.")


def _retry(job: Job, lease: Lease, error: JobInterrupted) -> None:
    if job.attempt < job.max_attempts:
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
