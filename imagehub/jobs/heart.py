"""Keeping the lease of a job while its worker does something long that does not beat by itself."""

import logging
import threading

from django.db import Error as DatabaseError
from django.db import connections

from imagehub.jobs import presence
from imagehub.jobs.lease import Lease

logger = logging.getLogger(__name__)

PULSE_SECONDS = 5.0
"""A lease that its worker has not extended for so long is extended for him, several times before it ends."""

HANGS_SECONDS = 300.0
"""A worker that has not extended it himself for so long hangs, and others shall have the job."""


class Heart:
    """Extends a lease from a thread of its own while its worker fetches, stores, or waits for a lock.

    A worker that beats by itself, as one does while a child program works, leaves it nothing to do. It dies with its
    process, writes nothing but the end of the lease, and does not judge: that a job was taken away, or is to be cancelled,
    its worker finds out when he next beats or writes.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._is_over = threading.Event()
        threading.Thread(target=self._beat, name=f"heart of {lease.job_id}", daemon=True).start()

    def stop(self) -> None:
        """Beat no more. Does not wait for a beat that is under way: it changes no row of a job that has ended."""
        self._is_over.set()

    def _beat(self) -> None:
        while not self._is_over.wait(PULSE_SECONDS):
            silence = self._lease.silent_seconds
            if silence < PULSE_SECONDS:
                continue
            if silence > HANGS_SECONDS:
                logger.error("The worker of job %s hangs; its lease is left to end", self._lease.job_id)
                return
            try:
                if not self._lease.extend():
                    return
                presence.stamp()
            except DatabaseError as error:
                logger.warning("The database did not answer a heartbeat (%s)", type(error).__name__)
            finally:
                connections.close_all()  # this thread's
