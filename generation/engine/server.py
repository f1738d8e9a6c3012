"""The loop: requests in from the guard, one picture after another, events out."""

import logging
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from generation.engine.failures import EngineStopped, RequestCancelled, as_failure, full_text
from generation.engine.models import LoadedModel, ModelCache
from generation.engine.rendering import Rendered, Watcher, render
from generation.engine.request import GenerateRequest
from generation.engine.saving import save_png
from imagehub.jobs.protocol import Channel, ExitCode
from training.pipelines.failures import FailureCode
from training.pipelines.hardware import used_bytes

logger = logging.getLogger(__name__)


PICTURES_IN_FLIGHT = 2
"""Pictures waiting to be written; more would only hide a slow disk and fill memory."""


@dataclass
class Entry:
    """What was said of an open request since it came."""

    is_cancelled: bool = False
    is_watched: bool = False


class Ledger:
    """Which requests are open, and what was said of them since. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}

    def open(self, request_id: str) -> bool:
        """Note a request; False when one of that id is open already."""
        with self._lock:
            is_new = request_id not in self._entries
            self._entries.setdefault(request_id, Entry())
            return is_new

    def cancel(self, request_id: str) -> None:
        """Mark a request as cancelled. One pipe keeps order, so an unknown one has ended already."""
        with self._lock:
            if request_id in self._entries:
                self._entries[request_id].is_cancelled = True

    def watch(self, request_id: str, *, is_watched: bool) -> None:
        """Note whether somebody looks on."""
        with self._lock:
            if request_id in self._entries:
                self._entries[request_id].is_watched = is_watched

    def look_up(self, request_id: str) -> Entry:
        """Return what is known of a request."""
        with self._lock:
            return self._entries.get(request_id) or Entry()

    def close(self, request_id: str) -> None:
        with self._lock:
            self._entries.pop(request_id, None)


class Server:
    """Answers the requests of one channel until the guard closes it, asks for the end or sends SIGTERM."""

    def __init__(self, channel: Channel, models: ModelCache) -> None:
        self._channel = channel
        self._models = models
        self._ledger = Ledger()
        # The only queue whose put() a signal handler may call while the same thread waits in get().
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._writer_places = threading.BoundedSemaphore(PICTURES_IN_FLIGHT)
        self._must_stop = False
        self._is_loading = False

    def serve(self, **ready: Any) -> ExitCode:
        """Announce ``ready`` and work until the end. What is under way when SIGTERM comes gets no final event.

        The guard, seeing it, gives those jobs back to the queue; nobody cancelled them.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)
        # Only now: who reads it may send SIGTERM at once.
        self._channel.emit("ready", **ready)
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            while (message := self._inbox.get()) is not None and not self._must_stop:
                self._work(message)
        except EngineStopped:
            logger.info("Stopped as asked")
        except BrokenPipeError:
            logger.warning("The guard is gone")
            return ExitCode.STOPPED
        finally:
            self._writer.shutdown(wait=True)
        return ExitCode.STOPPED if self._must_stop else ExitCode.FINISHED

    def _on_sigterm(self, _signal: int, _frame: object) -> None:
        self._must_stop = True
        self._inbox.put(None)
        if self._is_loading:  # it may take minutes, and nothing in it needs to be finished
            raise EngineStopped

    def _read(self) -> None:
        try:
            for message in self._channel.requests():
                if message.get("type") == "shutdown":
                    break
                if isinstance(message.get("id"), str):
                    self._take(message["id"], message)
                else:
                    logger.warning("Ignored a request without an id")
        finally:
            self._inbox.put(None)  # what was asked before the end is still answered

    def _take(self, request_id: str, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "cancel":
                self._ledger.cancel(request_id)
            case "previews":
                self._ledger.watch(request_id, is_watched=message.get("previews") is True)
            case "stats":  # answered at once, in the midst of whatever goes on
                used = used_bytes(self._models.hardware)
                self._channel.emit("stats", id=request_id, used_bytes=used, **self._models.statistics())
            case "generate" if self._ledger.open(request_id):
                self._inbox.put(message)
            case "generate":
                logger.warning("Ignored a second request with the id of an open one")
            case _:
                logger.warning("Ignored a request of a kind that means nothing here")

    def _work(self, message: dict[str, Any]) -> None:
        """Carry out one request; its one final event comes from here or from the writer."""
        request_id = message["id"]
        started_at = time.monotonic()
        try:
            watcher = _Progress(self, request_id)
            watcher.check()
            request = GenerateRequest.parse(message)
            if request.previews:
                self._ledger.watch(request_id, is_watched=True)
            model, load_seconds = self._model(request)
            watcher.check()
            rendered = render(model, request, watcher, lambda: self._models.spare_memory(model))
            watcher.check()
            self._hand_over(request, rendered, load_seconds, started_at)
        except RequestCancelled:
            self._finish(request_id, "cancelled")
            return
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next request must be served
            self._fail(request_id, error)
        else:
            return
        # Only here, where the error's traceback no longer keeps its tensors alive.
        self._models.release_memory()

    def _model(self, request: GenerateRequest) -> tuple[LoadedModel, float]:
        """Return the model of a request and the seconds it took to load, 0 when it was in memory."""
        model = self._models.find(request.model)
        if model is not None:
            return model, 0.0
        started_at = time.monotonic()
        self._channel.emit("phase", id=request.id, phase="load")
        with self._channel.alive("phase", id=request.id, phase="load"):
            self._is_loading = True
            try:
                model = self._models.load(request.model)
            finally:
                self._is_loading = False
        seconds = time.monotonic() - started_at
        self._channel.emit(
            "loaded",
            id=request.id,
            model=request.model.source,
            seconds=round(seconds, 4),
            loads=self._models.loads,
        )
        return model, seconds

    def _hand_over(
        self, request: GenerateRequest, rendered: Rendered, load_seconds: float, started_at: float
    ) -> None:
        """Let the writer finish a picture, so that the next one can start at once."""
        self._channel.emit("phase", id=request.id, phase="save")
        self._writer_places.acquire()
        self._writer.submit(self._write, request, rendered, load_seconds, started_at)

    def _write(
        self, request: GenerateRequest, rendered: Rendered, load_seconds: float, started_at: float
    ) -> None:
        try:
            saving_at = time.monotonic()
            saved = save_png(rendered.pixels, request.output, request.text)
            now = time.monotonic()
            timings = {
                "load": load_seconds,
                **rendered.timings,
                "save": now - saving_at,
                "total": now - started_at,
            }
            height, width = rendered.pixels.shape[:2]
            self._finish(
                request.id,
                "done",
                output=str(request.output),
                sha256=saved.sha256,
                size_bytes=saved.size_bytes,
                width=width,
                height=height,
                timings={name: round(seconds, 4) for name, seconds in timings.items()},
                loads=self._models.loads,
            )
        except BrokenPipeError:
            logger.warning("The guard is gone")  # the main thread meets it at its next event
        except Exception as error:  # noqa: BLE001 - whatever it is, the next picture must be written
            self._fail(request.id, error)
        finally:
            self._writer_places.release()

    def _fail(self, request_id: str, error: Exception) -> None:
        failure = as_failure(error)
        if failure.code == FailureCode.ENGINE_ERROR:
            logger.error("A request failed with %s", type(error).__name__)
        self._finish(
            request_id, "failed", code=failure.code, detail=failure.detail, traceback=full_text(error)
        )

    def _finish(self, request_id: str, event: str, **fields: Any) -> None:
        # Closed first: whoever reads the event may ask for the same id again at once.
        self._ledger.close(request_id)
        self._channel.emit(event, id=request_id, **fields)

    def check(self, request_id: str) -> None:
        """Raise when a request should go no further."""
        if self._must_stop:
            raise EngineStopped
        if self._ledger.look_up(request_id).is_cancelled:
            raise RequestCancelled

    def is_watched(self, request_id: str) -> bool:
        return self._ledger.look_up(request_id).is_watched

    def emit(self, event: str, **fields: Any) -> None:
        self._channel.emit(event, **fields)


class _Progress(Watcher):
    """Turns the progress of one request into events."""

    def __init__(self, server: Server, request_id: str) -> None:
        self._server = server
        self._request_id = request_id

    def phase(self, name: str) -> None:
        self._server.emit("phase", id=self._request_id, phase=name)

    def step(self, step: int, total: int) -> None:
        self._server.emit("step", id=self._request_id, step=step, total=total)

    def wants_previews(self) -> bool:
        return self._server.is_watched(self._request_id)

    def preview(self, step: int, jpeg: str) -> None:
        self._server.emit("preview", id=self._request_id, step=step, data=jpeg)

    def check(self) -> None:
        self._server.check(self._request_id)
