"""How much slower it is to start a program for every picture, which is how such systems usually begin."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.instance import temporary_instance
from bench.report import Figure, at_least, info, spread
from bench.setting import Setting, say
from bench.subject import GUIDANCE_SCALE, ROOT, SIDE, STEPS, Subject, pictures
from bench.throughput import make_through_everything

NAME = "one_process_per_image"
GOAL = 4.5


def run(setting: Setting) -> list[Figure]:
    """Let single processes and ImageHub take turns."""
    rounds, processes, count = setting.pick(4, 2), setting.pick(2, 1), setting.pick(16, 8)
    single: list[float] = []
    ours: list[float] = []
    with temporary_instance() as instance:
        subject = instance.add_subject(setting.scratch)
        say(
            f"{rounds} rounds: {processes} processes, then {count} pictures of ours, with {subject.description}"
        )
        with instance.supervised() as service, service.client() as client:
            make_through_everything(client, pictures(2, first_seed=1), subject)
            for turn in range(rounds):
                single += [one_process(subject, instance.folder, seed) for seed in range(processes)]
                wanted = pictures(count, first_seed=1000 * (turn + 1))
                ours.append(make_through_everything(client, wanted, subject)[0] / count)
                say(f"round {turn + 1}: a process {single[-1]:.2f} s, ours {ours[-1]:.3f} s a picture")
    ratio = statistics.median(single) / statistics.median(ours)
    return [
        at_least(NAME, "times slower than ours, seconds a picture", ratio, GOAL),
        info(NAME, "s a picture, one process each", spread(single)),
        info(NAME, "s a picture, ours, whole path", spread(ours)),
    ]


def one_process(subject: Subject, folder: Path, seed: int) -> float:
    """Make one picture in a process of its own; return the seconds."""
    argv = [sys.executable, "-m", "generation.engine", "--model", str(subject.folder)]
    argv += ["--prompt", "a red heart on a white background", "--output", str(folder / "single.png")]
    argv += ["--seed", str(seed), "--steps", str(STEPS), "--size", f"{SIDE}x{SIDE}"]
    argv += ["--guidance-scale", str(GUIDANCE_SCALE)]
    started_at = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started_at
