"""An app that an instance can be given: it writes down when a worker and its engine did what.

It replaces a few functions by ones that look at the clock and go on. ``bench.gap`` reads what it wrote.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings

FOLDER = "tap"


class EngineTap(AppConfig):
    name = "bench"
    label = "bench_engine_tap"

    def ready(self) -> None:
        from generation import warm_engine
        from generation.services import making
        from imagehub.jobs import runner
        from imagehub.jobs.child import Child

        follow = warm_engine.watch

        def watch(child: Child, *, on_event: Callable[[dict[str, Any]], None], **rest: Any) -> Any:
            def heard(event: dict[str, Any]) -> None:
                if event["event"] != "step":
                    what = event.get("phase", event["event"])
                    note(f"engine {what}", at=event["ts"])
                    note(f"heard {what}")
                on_event(event)

            return follow(child, on_event=heard, **rest)

        warm_engine.watch = watch
        making.adopt_image_file = _timed("adopt", making.adopt_image_file)
        making.save_image = _timed("row", making.save_image)
        runner.run_claimed = _timed("job", runner.run_claimed)
        Child.send = _timed("send", Child.send)  # type: ignore[method-assign]


def note(what: str, *, at: float | None = None) -> None:
    """Append one line to this process's file."""
    folder = Path(settings.VAR_DIR) / FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps([at or time.time(), what]) + "\n")


def _timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        note(f"{what} begins")
        try:
            return function(*args, **kwargs)
        finally:
            note(f"{what} ends")

    return timed
