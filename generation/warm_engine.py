"""This worker process's engine: started when first needed, kept warm between jobs, replaced when it fails."""

import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


class EngineCancelled(Exception):
    """The engine gave the request up because it was asked to."""


@dataclass
class _Talk:
    """How far the conversation about one picture has come."""

    has_pixels: bool = False
    final: dict[str, Any] | None = None


class WarmEngine:
    """A running ``generation.engine``, and the conversation with it.

    A picture is asked for with ``begin``, waited for with ``follow`` until its pixels are there, and with ``collect`` until
    its file is. Between these, others may be asked for: they are made one after another, in their order.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.launch = _launch(config)
        self.is_ready = False
        self._talks: dict[str, _Talk] = {}
        self.facts: dict[str, Any] = {}
        """What the engine last said of itself: its device, and what it has in memory."""
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

    @property
    def open_requests(self) -> set[str]:
        """The pictures that were asked for and have not ended; those of an engine that died have not either."""
        return {key for key, talk in self._talks.items() if talk.final is None}

    def begin(self, request: dict[str, Any], *, sensitive: Sequence[str]) -> str:
        """Ask for a picture, and return at once; what is returned tells it from others.

        Raises:
            JobInterrupted: the engine is gone.
            WorkerUnfit: it was gone before it was ready; that is not the request's fault.
        """
        key = uuid.uuid4().hex
        self._log.hide(sensitive)
        self._log.begin_job()
        try:
            self._child.send({"type": "generate", "id": key} | request)
        except ChildDied as error:
            raise self._died(error) from error
        self._talks[key] = _Talk()
        return key

    def follow(
        self,
        key: str,
        *,
        on_event: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Follow a picture until its pixels are there: then the engine is free for the next one.

        Raises:
            EngineCancelled: ``should_stop`` said so, and the engine let go in time.
            JobFailed: the engine could not do it, or did not answer in time.
            JobInterrupted: the engine died.
            WorkerUnfit: the engine died before it was ready; that is not the request's fault.
            LeaseLost: from ``should_stop``; the engine has been killed.
        """
        talk = self._talks[key]
        self._talk(key, lambda: talk.has_pixels or talk.final is not None, on_event, should_stop)
        if talk.final is not None:
            self._check(talk.final)

    def collect(self, key: str, *, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Wait until the file of a picture that was followed is there; return the engine's ``done`` event.

        Raises:
            JobFailed, JobInterrupted, LeaseLost, EngineCancelled: as ``follow`` does.
        """
        talk = self._talks[key]
        self._talk(key, lambda: talk.final is not None, lambda _: None, should_stop)
        del self._talks[key]
        return self._check(talk.final or {})

    def _talk(
        self,
        key: str,
        is_over: Callable[[], bool],
        on_event: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Listen to the engine until something is so; what others should hear meanwhile is noted."""
        if is_over():
            return

        def hear(event: dict[str, Any]) -> None:
            self._listen(event)
            if (
                event.get("id") == key
            ):  # a line of another request, or of nobody's, says nothing about this one
                on_event(event)

        try:
            outcome = watch(
                self._child,
                limits=ChildLimits(
                    self.config.wall_seconds, self.config.idle_seconds, self.config.grace_seconds
                ),
                on_event=hear,
                should_stop=should_stop,
                ask_to_stop=lambda child: child.send({"type": "cancel", "id": key}),
                is_final=lambda _: is_over(),
            )
        except ChildTimedOut as error:
            raise JobFailed(
                "engine_timeout", f"The engine was ended: no end after {error.seconds:.0f} s."
            ) from error
        except ChildDied as error:
            raise self._died(error) from error
        if outcome.final is None:  # it did not let go in time, and was killed
            raise EngineCancelled

    @staticmethod
    def _check(final: dict[str, Any]) -> dict[str, Any]:
        if final["event"] == "failed":
            raise JobFailed(final["code"], final["detail"], trace=final.get("traceback", ""))
        if final["event"] == "cancelled":
            raise EngineCancelled
        return final

    def abandon(self, key: str) -> None:
        """Let the engine stop a picture that nobody waits for any more. Harmless when it has ended.

        Raises:
            ChildDied: the engine is gone.
        """
        self._talks.pop(key, None)
        self._child.send({"type": "cancel", "id": key})

    def show_previews(self, key: str, *, is_watched: bool) -> None:
        """Say whether somebody looks on while a picture is made.

        Raises:
            ChildDied: the engine is gone.
        """
        self._child.send({"type": "previews", "id": key, "previews": is_watched})

    def ask_for_statistics(self) -> None:
        """Let the engine say what it has in memory; the answer is in ``facts`` a little later.

        Raises:
            ChildDied: the engine is gone.
        """
        self._child.send({"type": "stats", "id": "stats"})

    def stop(self) -> None:
        """End an engine that has nothing to do. Short, for the worker may hold a lease meanwhile."""
        self._child.stop(min(self.config.grace_seconds, IDLE_GRACE_SECONDS))

    def _listen(self, event: dict[str, Any]) -> None:
        """Note what the engine says of itself, and of pictures that are not listened to just now."""
        talk = self._talks.get(event.get("id", ""))
        match event.get("event"):
            case "done" | "failed" | "cancelled" if talk is not None:
                talk.final = event
            case "phase" if talk is not None and event.get("phase") == "save":
                talk.has_pixels = True
            case "ready":
                self.is_ready = True
                self.facts |= {name: event.get(name) for name in ("device", "dtype", "threads", "versions")}
            case "stats":
                said = {name: value for name, value in event.items() if name not in ENVELOPE}
                for model in said.get("models", ()):
                    model.pop("source", None)  # a place on this machine
                self.facts |= {"memory": said}

    def _died(self, error: ChildDied) -> JobInterrupted | WorkerUnfit:
        if not self.is_ready:
            return WorkerUnfit(f"The engine does not start: {error.exit.description}")
        return JobInterrupted("engine_died", f"The engine ended: {error.exit.description}")


ENVELOPE = frozenset({"v", "seq", "ts", "event", "id"})

_engine: WarmEngine | None = None


def has_engine(config: EngineConfig) -> bool:
    """Tell whether the engine of this process lives, and was started as the configuration wants it."""
    return _engine is not None and _engine.is_alive and _engine.launch == _launch(config)


def get_engine(config: EngineConfig) -> WarmEngine:
    """Return the engine of this process, started anew if it is gone or has to be started differently."""
    global _engine
    if not has_engine(config):
        stop_engine()
    if _engine is None:
        _engine = WarmEngine(config)
    _engine.config = config  # limits hold from the next picture on
    return _engine


def engine_facts() -> dict[str, Any]:
    """Return what the engine of this process last said of itself; nothing where none was needed yet."""
    return dict(_engine.facts) if _engine is not None and _engine.is_alive else {}


def _launch(config: EngineConfig) -> list[str]:
    """Return the options an engine is started with: a change of these needs another engine."""
    options = {
        "--threads": config.threads,
        "--device": config.device,
        "--dtype": config.dtype,
        "--models": config.models,
        "--model-memory": config.model_memory_bytes,
        "--adapters": config.adapters,
        "--adapter-memory": config.adapter_memory_bytes,
    }
    return [text for name, value in options.items() if value for text in (name, str(value))]


def stop_engine() -> None:
    """End the engine of this process, if there is one."""
    global _engine
    if _engine is not None:
        _engine.stop()
        _engine = None


# Not atexit, which the forked workers of a cluster do not run.
Finalize(None, stop_engine, exitpriority=10)
