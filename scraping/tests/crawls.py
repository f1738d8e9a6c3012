"""Runs the crawler as a worker does: under the guard, with a gatekeeper that answers it."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagehub.jobs.child import Child, ChildLimits, Outcome, environment_without_secrets, watch
from imagehub.jobs.run_log import RunLog
from scraping.crawler.assignment import Assignment, CrawlFolder
from scraping.politeness.gatekeeper import Gatekeeper
from scraping.politeness.hosts import Manners
from scraping.politeness.store import MemoryStore

ROOT = Path(__file__).parents[2]
QUICK = Manners(interval=0.02, breaker_seconds=0.2)
AGENT = "ImageHub/0.1 (+https://imagehub.example/bot)"
LIMITS = ChildLimits(wall_seconds=120, idle_seconds=30, grace_seconds=10)

Event = dict[str, Any]


def assignment(**fields: Any) -> Assignment:
    """An assignment for which loopback is the web."""
    defaults = {"user_agent": AGENT, "egress": {"allow_private": ["127.0.0.0/8"]}, "timeout_seconds": 10.0}
    return Assignment.model_validate(defaults | fields)


class Run:
    """One attempt at a crawl, and what it told."""

    def __init__(self, root: Path, manners: Manners = QUICK, store: MemoryStore | None = None) -> None:
        self.folder = CrawlFolder(root)
        self.events: list[Event] = []
        self.gatekeeper = Gatekeeper(store or MemoryStore(), manners, name=root.name)
        self.stop_when: Callable[[], bool] = lambda: False
        self.stopped_at = 0.0
        self.on_event: Callable[[Event, Child], None] = lambda event, child: None

    def carry_out(self, task: Assignment | None = None) -> Outcome:
        """Run the crawler until it ends; without an assignment, that of the folder."""
        if task is not None:
            task.write(self.folder)
        child = Child(
            [sys.executable, "-m", "scraping.crawler", str(self.folder.root)],
            cwd=ROOT,
            log=RunLog(self.folder.root / "run.log", limit_bytes=100_000),
            env=environment_without_secrets(),
        )
        child.start()

        def hear(event: Event) -> None:
            self.events.append(event)
            answer = self.gatekeeper.answer(event)
            if answer is not None and child.is_alive:
                child.send(answer)
            self.on_event(event, child)

        def should_stop() -> bool:
            if not self.stopped_at and self.stop_when():
                self.stopped_at = time.time()
            return bool(self.stopped_at)

        try:
            return watch(child, limits=LIMITS, on_event=hear, should_stop=should_stop)
        finally:
            self.gatekeeper.close()

    def of(self, event: str) -> list[Event]:
        return [one for one in self.events if one["event"] == event]

    @property
    def items(self) -> dict[str, Event]:
        """By address; fails if one came to its end twice."""
        items = {item["url"]: item for item in self.of("item")}
        assert len(items) == len(self.of("item"))
        return items

    @property
    def states(self) -> dict[str, str]:
        """By the path of an address, its state and its reason."""
        return {
            "/" + url.split("/", 3)[3]: f"{item['state']} {item['reason']}".strip()
            for url, item in self.items.items()
        }

    @property
    def finished(self) -> Event:
        (event,) = self.of("finished")
        assert Counter(item["state"] for item in self.of("item")) == event["counts"]
        assert sum(event["counts"].values()) == event["found"]
        return event
