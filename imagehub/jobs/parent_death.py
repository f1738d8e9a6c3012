"""Processes that do not outlive their parent. Linux only; elsewhere these do nothing."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # prctl(2)

# Resolved at import: between fork and exec there must be no import, lookup or allocation that could wait for a
# lock another thread held at the moment of the fork.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def die_with_parent(sig: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when the thread that started it ends (prctl(2))."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)


def before_exec(sig: int = signal.SIGKILL) -> Callable[[], None]:
    """Return a ``preexec_fn`` that ties the new program to this process."""
    parent = os.getpid()

    def tie() -> None:
        die_with_parent(sig)
        if _prctl is not None and os.getppid() != parent:  # the parent ended in between
            os._exit(0)

    return tie


def tie_future_forks() -> None:
    """Make every process forked from here on, and those it forks in turn, die with its parent.

    Django-Q's sentinel, pusher, monitor and workers would live on, and go on taking messages, when their
    main process is killed.
    """
    os.register_at_fork(after_in_child=die_with_parent)
