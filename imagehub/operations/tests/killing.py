"""Processes that are killed at a place of our choice."""

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

from django.db import connections


def killed_at(owner: Any, name: str, act: Callable[[], object], *, call: int = 1) -> None:
    """Let a process of its own act, and end it by ``kill -9`` as it comes to a call of a function: the first, or a later one.

    The test needs a database of its own (``transaction=True``): the process has its own connections.
    """
    connections.close_all()  # two processes cannot share one
    pid = os.fork()
    if not pid:
        try:
            calls, real = count(1), getattr(owner, name)

            def dies(*args: Any, **options: Any) -> Any:
                if next(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            setattr(owner, name, dies)
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"{name} was not called so often"
    assert os.WTERMSIG(status) == signal.SIGKILL
