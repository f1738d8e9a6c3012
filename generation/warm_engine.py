"""This worker process's engine: started when first needed, kept warm between jobs, replaced when it fails."""

import os
import sys
import uuid
from collections.abc import Callable, Sequence
from multiprocessing.util import Finalize
from typing import Any

from django.conf import settings

from imagehub import roots
from imagehub.config_schema import EngineConfig
from imagehub.jobs.child import (
    Child,
    ChildDied,
    ChildLimits,
    ChildTimedOut,
    environment_without_secrets,
    watch,
)
from imagehub.jobs.lease import JobFailed, JobInterrupted, WorkerUnfit
from imagehub.jobs.run_log import RunLog

IDLE_GRACE_SECONDS = 5

FINAL = frozenset({"done", "failed", "cancelled"})


class EngineCancelled(Exception):
    """The engine gave the request up because it was asked to."""


class WarmEngine:
    """A running ``generation.engine``, and the conversation with it. One request at a time."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.launch = _launch(config)
        self.is_ready = False
        self._log = RunLog(
            roots.logs_root() / f"engine-{os.getpid()}.log", limit_bytes=config.log_limit_bytes
        )
        self._child = Child(
            [sys.executable, "-m", "generation.engine", *self.launch],
            cwd=settings.BASE_DIR,
            log=self._log,
            env=environment_without_secrets() | {"OMP_NUM_THREADS": str(config.threads)},
        )
        self._child.start()

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive

    def render(
        self,
        request: dict[str, Any],
        *,
        on_event: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        sensitive: Sequence[str],
    ) -> dict[str, Any]:
        """Send one request and follow it to its end; return the engine's ``done`` event.

        Raises:
            EngineCancelled: ``should_stop`` said so, and the engine let go in time.
            JobFailed: the engine could not do it, or did not answer in time.
        JobInterrupted: the engine died.
        WorkerUnfit: the engine died before it was ready; that is not the request's fault.
            LeaseLost: from ``should_stop``; the engine has been killed.
        """
        key = uuid.uuid4().hex
        self._log.hide(sensitive)
        self._log.begin_job()

        def is_final(event: dict[str, Any]) -> bool:
            return event.get("id") == key and event.get("event") in FINAL

        def pass_on(event: dict[str, Any]) -> None:
            self.is_ready = self.is_ready or event.get("event") == "ready"
            if (
                event.get("id") == key
            ):  # a line of an earlier request, or of nobody's, says nothing about this one
                on_event(event)

        try:
            self._child.send({"type": "generate", "id": key} | request)
            outcome = watch(
                self._child,
                limits=ChildLimits(
                    self.config.wall_seconds, self.config.idle_seconds, self.config.grace_seconds
                ),
                on_event=pass_on,
                should_stop=should_stop,
                ask_to_stop=lambda child: child.send({"type": "cancel", "id": key}),
                is_final=is_final,
            )
        except ChildTimedOut as error:
            raise JobFailed(
                "engine_timeout", f"The engine was ended: no end after {error.seconds:.0f} s."
            ) from error
        except ChildDied as error:
            if not self.is_ready:
                raise WorkerUnfit(f"The engine does not start: {error.exit.description}") from error
            raise JobInterrupted("engine_died", f"The engine ended: {error.exit.description}") from error
        if outcome.final is None:  # it did not let go in time, and was killed
            raise EngineCancelled
        final = outcome.final
        if final["event"] == "failed":
            raise JobFailed(final["code"], final["detail"], trace=final.get("traceback", ""))
        if final["event"] == "cancelled":
            raise EngineCancelled
        return final

    def stop(self) -> None:
        """End an engine that has nothing to do. Short, for the worker may hold a lease meanwhile."""
        self._child.stop(min(self.config.grace_seconds, IDLE_GRACE_SECONDS))


_engine: WarmEngine | None = None


def get_engine(config: EngineConfig) -> WarmEngine:
    """Return the engine of this process, started anew if it is gone or has to be started differently."""
    global _engine
    if _engine is not None and (not _engine.is_alive or _engine.launch != _launch(config)):
        stop_engine()
    if _engine is None:
        _engine = WarmEngine(config)
    _engine.config = config  # limits hold from the next picture on
    return _engine


def _launch(config: EngineConfig) -> list[str]:
    """Return the options an engine is started with: a change of these needs another engine."""
    return ["--threads", str(config.threads), "--device", config.device, "--dtype", config.dtype]


def stop_engine() -> None:
    """End the engine of this process, if there is one."""
    global _engine
    if _engine is not None:
        _engine.stop()
        _engine = None


# Not atexit, which the forked workers of a cluster do not run.
Finalize(None, stop_engine, exitpriority=10)
