"""What it costs to ask for the configuration while its file does not change: one ``stat`` and no parsing."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from django.conf import settings

from bench.report import Figure, at_most, info, percentile, spread
from bench.setting import Setting, say
from bench.subject import ROOT

NAME = "config_read"
GOAL_US = 20.0


def run(setting: Setting) -> list[Figure]:
    """Read a copy of the file that ships many times, in processes of their own."""
    rounds, count = setting.pick(5, 1), setting.pick(100_000, 5_000)
    path = setting.scratch / "config_read.yaml"
    shutil.copyfile(ROOT / "config.yaml", path)
    medians = []
    for _ in range(rounds):
        argv = [sys.executable, "-m", "bench.config_read", str(path), str(count)]
        found = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
        medians.append(json.loads(found.stdout))
    say(f"{rounds} rounds of {count} reads done")
    return [
        at_most(NAME, "an unchanged read, p50", percentile(medians, 0.5), GOAL_US, unit=" us"),
        info(NAME, "  of each round, p50", f"{spread(medians)} us"),
    ]


def main() -> None:
    """Print the median time of a read in microseconds."""
    settings.configure(CONFIG_FILE=Path(sys.argv[1]), CONFIG_FILE_IS_NAMED=True)
    from imagehub.config import get_config, problem  # it needs the settings

    if problem():
        raise SystemExit(problem())
    times = []
    for _ in range(int(sys.argv[2])):
        started_at = time.perf_counter_ns()
        get_config()
        times.append(time.perf_counter_ns() - started_at)
    print(json.dumps(percentile(times, 0.5) / 1000))


if __name__ == "__main__":
    main()
