import os
import signal
import time

from django.conf import settings
from django.db import OperationalError, transaction

from imagehub.jobs.lease import JobFailed, JobInterrupted, Lease, WorkerUnfit
from imagehub.jobs.tests.errands.models import Effect, Errand

GO = "go"
"""The file, in the folder of a machine, that lets those go on which wait for it."""


def perform(errand: Errand, lease: Lease) -> None:
    if errand.behaviour == "kills_worker":
        os.kill(os.getpid(), signal.SIGKILL)
    if errand.behaviour == "fails":
        raise JobFailed("no_luck", "It did not work out.", trace="secret trace")
    if errand.behaviour == "is_interrupted" and errand.attempt < 3:
        raise JobInterrupted("program_died", "What did the work died.")
    if errand.behaviour == "loses_the_database" and errand.attempt < 2:
        raise OperationalError("server closed the connection; row (secret prompt)")
    if errand.behaviour == "has_no_engine" and errand.worker != "cured":
        raise WorkerUnfit("The engine does not start.")
    if errand.behaviour == "crashes":
        raise ZeroDivisionError("/root/secret/path")
    if errand.behaviour == "forgets":
        return
    while errand.behaviour == "waits_for_go" and not (settings.VAR_DIR / GO).exists():
        time.sleep(
            0.05
        )  # without a look at its lease: only the fence keeps what it does then from being written
    deadline = time.monotonic() + errand.seconds
    while (left := deadline - time.monotonic()) > 0:
        lease.report(step=1, total_steps=4, message="Waiting")
        lease.raise_if_stopping()
        time.sleep(min(0.05, left))
    with transaction.atomic():
        Effect.objects.create(errand=errand, pid=os.getpid())
        lease.complete()
