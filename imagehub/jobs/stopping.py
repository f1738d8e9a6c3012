"""A flag that says "this cluster is stopping", seen by every process forked after its import.

Django-Q tells a running task nothing when its cluster is asked to end. The flag is one byte of shared
memory: the cluster's main process sets it, and workers look at it between and during jobs.
"""

import mmap

_flag = mmap.mmap(-1, 1)


def request_stop() -> None:
    """Ask every worker of this process tree to let go of its work. Safe in a signal handler."""
    _flag[0] = 1


def stop_requested() -> bool:
    return _flag[0] == 1


def clear_stop() -> None:
    """Forget the request (tests, and a cluster that starts)."""
    _flag[0] = 0
