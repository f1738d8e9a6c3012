"""Processes that do not outlive their parent. Linux only; elsewhere these do nothing.

The kernel means the thread that forked, not its process: when that thread ends, so does the child.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # prctl(2)

_prctl: Callable[..., int] | None = None
if sys.platform == "linux":
    # PyDLL keeps the interpreter lock during the call, so that not even that lock changes hands.
    _prctl = ctypes.PyDLL(None).prctl
    _prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    _prctl.restype = ctypes.c_int


def die_with_parent(sig: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent ends (prctl(2))."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)


def before_exec(sig: int = signal.SIGKILL) -> Callable[[], None]:
    """Return a ``preexec_fn`` that ties a new program to this process.

    Between fork and exec only the forking thread exists, and a lock that another one held stays locked
    for ever. So nothing is imported, opened or logged there: one system call through a function found
    beforehand, and a question after the parent, which may have died before the call.
    """
    parent = os.getpid()

    def tie() -> None:
        die_with_parent(sig)
        if _prctl is not None and os.getppid() != parent:
            os._exit(0)

    return tie


def tie_future_forks() -> None:
    """Make every process forked from here on, and those it forks in turn, die with its parent.

    Django-Q's sentinel, pusher, monitor and workers would live on, and go on taking messages, when their
    main process is killed.
    """
    os.register_at_fork(after_in_child=die_with_parent)
