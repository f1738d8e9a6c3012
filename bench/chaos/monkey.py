"""Who does the damage: what happens when, from a seed."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bench.chaos.servers import Postgres, Redis
from bench.chaos.stage import Stage

PAUSE_SECONDS = (1.0, 5.0)
SETTLED_KINDS = 6
"""So many kinds of processes there are at least once all clusters run."""

OUTAGE_SECONDS = (0.5, 8.0)
AFTERWARDS_SECONDS = 15.0
"""So long after PostgreSQL is back a request may still say that it is not."""


@dataclass
class Monkey:
    """Picks something to break, breaks it, and mends what would not mend itself."""

    stage: Stage
    redis: Redis
    postgres: Postgres | None
    has_small_disk: bool
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When the database was away, by the monotonic clock."""

    def rage(self, seconds: float, say: Callable[[str], None]) -> None:
        """Break things for so long."""
        choices: list[tuple[Callable[[], str], int]] = [
            (self.kill, 10),
            (self.stop_redis, 2),
            (self.freeze_redis, 2),
        ]
        if self.postgres is not None:
            choices.append((self.restart_postgres, 3))
        if self.has_small_disk:
            choices.append((self.fill_disk, 2))
        acts, weights = zip(*choices, strict=True)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            what = self.chance.choices(acts, weights)[0]()
            self.done[what] += 1
            say(f"{now:5.0f} s  {what}")
            self.stage.tend(self.chance.uniform(*PAUSE_SECONDS))

    def kill(self) -> str:
        """End one process of the instance with SIGKILL: each kind is as likely as any other.

        The supervisor is spared while it starts, or it would hardly ever come to start anything.
        """
        kind, one = (
            self.chance.random(),
            self.chance.random(),
        )  # always two, or the seed would say no more what comes next
        victims = self.stage.victims()
        if len(victims) < SETTLED_KINDS:
            return "kill -9 (too little was there)"
        title = sorted(victims)[int(kind * len(victims))]
        with suppress(ProcessLookupError):
            os.kill(victims[title][int(one * len(victims[title]))], signal.SIGKILL)
        return f"kill -9 {title}"

    def restart_postgres(self) -> str:
        """End PostgreSQL in immediate mode, and start it again after a while."""
        assert self.postgres is not None
        began = time.monotonic()
        self.postgres.stop()
        self._while_it_lasts()
        self.postgres.start()
        self.outages.append((began, time.monotonic() + AFTERWARDS_SECONDS))
        return "PostgreSQL restarted"

    def stop_redis(self) -> str:
        """Kill Redis, and start it again after a while."""
        self.redis.stop()
        self._while_it_lasts()
        self.redis.start()
        return "Redis stopped"

    def freeze_redis(self) -> str:
        """Let Redis stand still for a while."""
        self.redis.freeze()
        self._while_it_lasts()
        self.redis.thaw()
        return "Redis frozen"

    def fill_disk(self) -> str:
        """Leave no space under the media root for a while."""
        self.stage.fill()
        self._while_it_lasts()
        self.stage.free()
        return "disk filled"

    def _while_it_lasts(self) -> None:
        """Let an outage last; now and then something dies in it as well."""
        seconds, comes_more = self.chance.uniform(*OUTAGE_SECONDS), self.chance.random() < 0.3
        self.stage.tend(seconds)
        if comes_more:
            self.done[f"{self.kill()} in an outage"] += 1
