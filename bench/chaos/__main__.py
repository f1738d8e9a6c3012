"""``python -m bench.chaos [--seed N] [--minutes M] [--database postgresql|sqlite]``: break everything, and look what is left.

Starts a PostgreSQL, a Redis and an instance of its own, lets clients of every kind work with it while processes are killed,
services stop and the disk fills up, heals everything, waits, and compares what is there with what the clients were promised.
Exits with 1, and says the seed, on any difference. The same seed does the same damage, as far as processes are ready for it.
"""

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.chaos import site
from bench.chaos.callers import Caller, Ledger, Work
from bench.chaos.monkey import Monkey
from bench.chaos.servers import Postgres, Redis
from bench.chaos.stage import Stage
from bench.instance import DidNotStart
from bench.subject import ROOT

READY_SECONDS = 180.0
HEAL_SECONDS = 300.0
ABANDONED_SECONDS = 3 * 24 * 3600
"""So old files are made afterwards, for a sweep takes nothing that may still be in use."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="default: drawn")
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="of damage; starting and healing come on top (default: 2)"
    )
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--keep-log", type=Path, help="a file for the log of the instance")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything started is ended
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.database}", flush=True)
    breaches = _run(options)
    for breach in breaches[:100]:
        print(f"BREACH  {breach}")
    verdict = f"{len(breaches)} breaches" if breaches else "nothing lost, nothing doubled, nothing stuck"
    print(f"\nseed {options.seed}: {verdict}")
    return 1 if breaches else 0


def _run(options: argparse.Namespace) -> list[str]:
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="imagehub-chaos-", ignore_cleanup_errors=True)
            )
        )
        redis = Redis()
        stack.callback(redis.remove)
        postgres = Postgres() if options.database == "postgresql" else None
        if postgres is not None:
            stack.callback(postgres.remove)
        address = stack.enter_context(site.serving())
        stage = Stage(
            folder, database_url=postgres.url if postgres else "", redis_url=redis.url, site=address
        )
        has_small_disk = stack.enter_context(stage.small_disk())
        if not has_small_disk:
            _say("No file system can be mounted here: the disk is left alone.")
        stack.callback(stage.stop)
        if options.keep_log:
            stack.callback(lambda: options.keep_log.write_bytes(stage.instance.log.read_bytes()))
        stage.start()
        _until(lambda: _is_ready(stage), READY_SECONDS, stage, "ready")
        work = Work(stage.port, stage.instance.token, address, options.seed)
        work.prepare()
        monkey = Monkey(stage, redis, postgres, has_small_disk, random.Random(options.seed))
        callers = work.callers()
        for caller in callers:
            caller.start()
        monkey.rage(60 * options.minutes, _say)
        breaches = _heal(stage, work, callers, monkey)
        breaches += [f"asked to end, {left} was left" for left in stage.stop()]
        return breaches + work.ledger.breaches + _refused(work.ledger, monkey) + _sweep(stage)


def _heal(stage: Stage, work: Work, callers: list[Caller], monkey: Monkey) -> list[str]:
    """Wait until all has come to rest; return what is not as it was promised."""
    healed_at = time.monotonic()
    is_ready = _until(lambda: _is_ready(stage), READY_SECONDS, stage)
    _say(f"healed; ready after {time.monotonic() - healed_at:.0f} s")
    work.is_over.set()
    for caller in callers:
        while caller.is_alive():
            stage.tend(0.2)
    _say(f"the last client was answered after {time.monotonic() - healed_at:.0f} s")
    found: dict[str, Any] = {}

    def is_at_rest() -> bool:
        found.update(_look(stage, work.ledger))
        return not found["breaches"]

    _until(is_at_rest, HEAL_SECONDS, stage)
    _say(f"at rest after {time.monotonic() - healed_at:.0f} s")
    _tell(monkey, work.ledger, stage, found["ended"])
    return [*found["breaches"], *([] if is_ready else ["It did not become ready again"])]


def _until(condition: Callable[[], bool], seconds: float, stage: Stage, needed: str = "") -> bool:
    """Wait for something, and tell whether it came.

    Raises:
        DidNotStart: it did not, and is ``needed``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if needed:
                raise DidNotStart(
                    f"Not {needed} within {seconds:.0f} s.\n{stage.instance.log.read_text()[-3000:]}"
                )
            return False
        stage.tend(1.0)
    return True


def _is_ready(stage: Stage) -> bool:
    return Work(stage.port, "", "", 0).call("GET", "/api/health/ready").status == 200


def _look(stage: Stage, ledger: Ledger) -> dict[str, Any]:
    """Compare the rows with what was promised."""
    promised = stage.instance.folder / "promised.json"
    promised.write_text(json.dumps({"accepted": ledger.accepted, "unknown": ledger.unknown}))
    argv = [sys.executable, "-m", "bench.chaos.look", str(promised)]
    env = stage.instance.env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _refused(ledger: Ledger, monkey: Monkey) -> list[str]:
    """Find answers that nobody may get: a 5xx, but for a 503 with a time to wait while the database was away."""
    found: Counter[str] = Counter()
    for answer in ledger.answers:
        if answer.status < 500:
            continue
        was_away = any(answer.ended >= start and answer.began <= end for start, end in monkey.outages)
        if answer.status != 503 or not was_away:
            found[f"{answer.what} answered {answer.status} {answer.content[:200]!r}"] += 1
        elif not answer.retry_after.isdigit():
            found[f"{answer.what} answered 503 without Retry-After"] += 1
    return [f"{what} ({count} times)" for what, count in found.items()]


def _sweep(stage: Stage) -> list[str]:
    """Sweep what is left in the media root, as if all of it were old, and find where rows and files still differ."""
    past = time.time() - ABANDONED_SECONDS
    for path in [stage.media, *stage.media.rglob("*")]:
        os.utime(path, (past, past), follow_symlinks=False)
    argv = [sys.executable, "manage.py", "check_storage", "--fix"]
    done = subprocess.run(argv, cwd=ROOT, env=stage.instance.env, capture_output=True, text=True, check=False)
    _say(f"check_storage --fix: {' | '.join(line for line in done.stdout.splitlines() if line[:1] != ' ')}")
    return [f"check_storage --fix: {done.stdout[-500:]}{done.stderr[-500:]}"] if done.returncode else []


def _tell(monkey: Monkey, ledger: Ledger, stage: Stage, ended: dict[str, dict[str, int]]) -> None:
    """Print what was done, what clients were answered, and how jobs ended."""
    rows = [("done", what, str(count)) for what, count in sorted(monkey.done.items())]
    rows.append(("done", "supervisor started", str(stage.starts)))
    statuses = Counter(answer.status or "no answer" for answer in ledger.answers)
    rows += [("answers", str(status), str(count)) for status, count in sorted(statuses.items(), key=str)]
    longest = max(ledger.answers, key=lambda answer: answer.ended - answer.began)
    rows.append(("answers", f"longest wait, {longest.what}", f"{longest.ended - longest.began:.1f} s"))
    for kind, counts in ended.items():
        rows += [(kind, how, str(count)) for how, count in sorted(counts.items())]
    rows += [("promised", kind, str(len(ids))) for kind, ids in sorted(ledger.accepted.items())]
    rows += [("may be promised", kind, str(count)) for kind, count in sorted(ledger.unknown.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print()
    for part, what, count in rows:
        print(f"{part.ljust(widths[0])}  {what.ljust(widths[1])}  {count}")
    print(flush=True)


def _say(text: str) -> None:
    print(f"   {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
