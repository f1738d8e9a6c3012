"""Signs of life of a worker while a task takes long that is no job: sweeps, purges, exports.

A cluster that does not answer its doorbell is started anew (:mod:`imagehub.jobs.presence`). Who answers it stamps, and so does the
heart of each job; of other tasks a worker stamps from a thread, whatever they do, until Django-Q says that they are over. It
also ends those that outlive the time limit of their cluster.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from django.db import Error as DatabaseError
from django.db import connections

from imagehub.jobs import presence
from imagehub.jobs.tasks import answer_doorbell

logger = logging.getLogger(__name__)

PULSE_SECONDS = 5.0

_is_over: threading.Event | None = None
"""Of the task at hand: a worker has one at a time."""


def begin(*, func: Callable[..., Any] | None, **_: Any) -> None:
    """Begin to stamp; Django-Q calls it in the worker, before a task."""
    global _is_over
    if func is None or func is answer_doorbell:
        return
    _is_over = threading.Event()
    threading.Thread(target=_stamp_until, args=(_is_over,), name="busy with a task", daemon=True).start()


def end(**_: Any) -> None:
    """Stamp no more; Django-Q calls it in the worker, however a task ended."""
    global _is_over
    if _is_over is not None:
        _is_over.set()
        _is_over = None


def _stamp_until(is_over: threading.Event) -> None:
    while not is_over.wait(PULSE_SECONDS):
        try:
            presence.stamp()
        except DatabaseError as error:
            logger.warning("The database did not take a sign of life (%s)", type(error).__name__)
        finally:
            connections.close_all()  # this thread's
