"""Training steps against the loops that somebody would write by hand, the time to the first of them, and large ones."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import MIB, cpu_seconds
from bench.report import Figure, at_least, info, spread
from bench.setting import Setting, say
from bench.subject import ROOT, choose_subject

NAME = "training"
SHARE, ABOVE_NAIVE = 0.95, 1.0
WARM_UP = 5
"""Steps that are not counted: the first ones of a process take longer, whoever takes them."""

WAYS = ("ours", "cached", "naive")


@dataclass(frozen=True)
class Measured:
    """What one process did."""

    rate: float
    """Steps a second."""
    cpu: float
    """Processor seconds for a step, of all threads."""
    first_step: float
    """Seconds from the start of the process to the end of its first step."""
    last: dict[str, Any]
    """Its last event."""


def run(setting: Setting) -> list[Figure]:
    """Let three ways of training take turns, process by process, and then take a step of a large model."""
    subject = choose_subject(setting.scratch)
    rounds, steps = setting.pick(5, 1), setting.pick(80, 20)
    say(f"{rounds} rounds of {steps} steps, with {subject.description}")
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            folder = setting.scratch / "training" / f"{way}-{number}"
            argv = [sys.executable, "-m", "bench.training_data", str(folder), str(subject.folder), str(steps)]
            subprocess.run(argv, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
            found[way].append(_train(folder, way, steps))
    return [*_figures(found), *_large(setting)]


def _train(folder: Path, way: str, steps: int) -> Measured:
    program = (
        ["training.trainer", str(folder)] if way == "ours" else ["bench.bare_training", str(folder), way]
    )
    started_at = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", *program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    marks: list[tuple[int, float, float]] = []
    event: dict[str, Any] = {}
    first_step = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "phase" and event["phase"] == "train" and not first_step:
            first_step = event["ts"] - started_at
        if event["event"] == "step":
            if not marks:
                # We tell of the first steps together, and how long each of them took.
                first_step = first_step + event["points"][0][4] if way == "ours" else event["ts"] - started_at
            if event["step"] >= WARM_UP:
                marks.append((event["step"], event["ts"], cpu_seconds(process.pid)))
    if process.wait() or event.get("step") != steps:
        raise RuntimeError(f"The training “{way}” ended with {process.returncode}.")
    (step, ts, cpu), (last_step, last_ts, last_cpu) = marks[0], marks[-1]
    taken = last_step - step
    return Measured(taken / (last_ts - ts), (last_cpu - cpu) / taken, first_step, event)


def _figures(found: dict[str, list[Measured]]) -> list[Figure]:
    def ratio(way: str, value: str) -> float:
        ours, theirs = ([getattr(one, value) for one in found[name]] for name in ("ours", way))
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    last = found["ours"][-1].last
    seconds = last["seconds"]
    outside = sum(seconds.values()) - seconds["train"]
    rates = [info(NAME, f"steps/s, {way}", spread([one.rate for one in found[way]])) for way in WAYS]
    cpu = [
        info(NAME, f"processor ms for a step, {way}", spread([1000 * one.cpu for one in found[way]]))
        for way in WAYS
    ]
    return [
        at_least(
            NAME, "steps/s, times those of a bare loop over cached latents", ratio("cached", "rate"), SHARE
        ),
        at_least(
            NAME, "steps/s, times those with both encoders in the loop", ratio("naive", "rate"), ABOVE_NAIVE
        ),
        info(NAME, "processor time for a step, times that of the bare loop", f"{ratio('cached', 'cpu'):.3f}"),
        *rates,
        *cpu,
        info(NAME, "s from start to the first step, ours", spread([one.first_step for one in found["ours"]])),
        info(
            NAME,
            "s from start to the first step, cached",
            spread([one.first_step for one in found["cached"]]),
        ),
        info(
            NAME,
            f"share of time outside the {last['step']} steps (loading, encoding, saving, export)",
            f"{outside / sum(seconds.values()):.2f}",
        ),
    ]


def _large(setting: Setting) -> list[Figure]:
    """Take steps of SD 1.5, and where there is a GPU of SDXL, too, each in a process of its own."""
    has_gpu = _run("import torch; print(torch.cuda.is_available())").strip() == "True"
    figures = []
    for model in ("sd15", "sdxl") if has_gpu else ("sd15",):
        for option in ([], ["--checkpointing"]):
            if setting.quick and not option:
                continue
            say(f"a step of {model} {' '.join(option)}")
            argv = [sys.executable, "-m", "bench.large_step", "--model", model, *option]
            argv += ["--steps", "20" if has_gpu else "1", "--batch", "4" if has_gpu else "1"]
            said = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
            large = json.loads(said.splitlines()[-1])
            usual = statistics.median(large["seconds"][WARM_UP:] or large["seconds"])
            figures.append(
                info(
                    NAME,
                    f"{model}, random weights, {large['device']}, {large['precision']}, "
                    f"{'with' if option else 'without'} gradient checkpointing: a step; memory",
                    f"{usual:.3g} s; {large['peak_bytes'] / MIB:.0f} MiB",
                )
            )
    return figures


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
