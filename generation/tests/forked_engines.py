"""Engines forked from a process that has imported what they need, which takes six seconds of processor time.

What such a process runs is the shipped ``python -m generation.engine``; only its imports are there already. Tests of the
start itself, and all of the queue, start engines as they ship.
"""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["generation.tests.preloaded"])


def start_engine(
    arguments: Sequence[str], *, stdout: Path, stderr: Path, pipes: Mapping[str, int] | None = None
) -> BaseProcess:
    """Start an engine that writes into these files, and has these pipes: descriptors by the names of their variables."""
    handed = {name: _Handed(fd) for name, fd in (pipes or {}).items()}
    process = CONTEXT.Process(target=_run, args=(arguments, stdout, stderr, handed))
    process.start()
    return process


class _Handed:
    """A descriptor on its way into another process, where it arrives as a number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self):
        return _arrived, (DupFd(self.fd),)


def _arrived(handle) -> int:
    return handle.detach()


def _run(arguments, stdout, stderr, handed) -> None:
    for name, fd in handed.items():
        os.environ[name] = str(fd)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(stdout.parent)
    sys.argv = ["generation.engine", *arguments]
    runpy.run_module("generation.engine", run_name="__main__", alter_sys=True)
