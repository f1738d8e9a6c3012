"""A hundred random stacks over twenty adapters, on an engine that keeps eight of them."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.machine import memory_mib
from bench.report import Figure, at_most, info, percentile
from bench.setting import Setting, say
from bench.subject import ROOT, SIDE, Subject, choose_subject

NAME = "stacks"
ADAPTERS, RESIDENT, LARGEST = 20, 8, 8
STEPS = 4
DRIFT = 1.05
FINAL = ("done", "failed", "cancelled")


def run(setting: Setting) -> list[Figure]:
    """Draw with one stack after another, and look at what was loaded and how large the engine has become."""
    count = setting.pick(100, 40)
    subject = choose_subject(setting.scratch)
    folder = setting.scratch / "adapters"
    argv = [sys.executable, "-m", "bench.random_adapters", str(subject.folder), str(folder), str(ADAPTERS)]
    subprocess.run(argv, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    say(f"{count} stacks of 0 to {LARGEST} of {ADAPTERS} adapters, with {subject.description}")
    with _Engine() as engine:
        plain = engine.draw(subject, setting.scratch, [])
        sizes, switches = [], []
        drawn = random.Random(0)
        for _ in range(count):
            chosen = drawn.sample(range(ADAPTERS), drawn.randint(0, LARGEST))
            stack = [
                {
                    "id": str(number),
                    "source": str(folder / f"{number}.safetensors"),
                    "weight": round(drawn.uniform(-1, 1), 2),
                }
                for number in chosen
            ]
            switches.append(1000 * engine.draw(subject, setting.scratch, stack)["timings"]["adapters"])
            sizes.append(memory_mib(engine.pid)[1])
        again = engine.draw(subject, setting.scratch, [])
        said = engine.ask({"type": "stats", "id": "stats"}, ("stats",))
    quarter = count // 4
    early, late = max(sizes[quarter : 2 * quarter]), max(sizes[-quarter:])
    (model,) = said["models"]
    return [
        at_most(NAME, f"loads of the base in {count} stacks", said["loads"], 1),
        at_most(NAME, "adapters in memory at the end", len(said["adapters"]), RESIDENT),
        at_most(NAME, "memory in the last quarter, times that in the second", late / early, DRIFT),
        info(
            NAME,
            "resident size at the start, in the second and the last quarter",
            f"{sizes[0]:.0f}; {early:.0f}; {late:.0f} MiB",
        ),
        info(
            NAME,
            "adapters: loaded, found, let go",
            f"{model['adapter_loads']}; {model['adapter_hits']}; {model['adapter_evictions']}",
        ),
        info(
            NAME,
            "switching to a stack, p50; p95",
            f"{percentile(switches, 0.5):.0f}; {percentile(switches, 0.95):.0f} ms",
        ),
        info(
            NAME,
            "the base draws the same pixels afterwards",
            "yes" if again["sha256"] == plain["sha256"] else "NO",
        ),
    ]


class _Engine:
    """The engine by itself, spoken to over standard input and output."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "generation.engine", "--device", "cpu", "--adapters", str(RESIDENT)]
        self._process = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> "_Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def draw(self, subject: Subject, folder: Path, stack: list[dict[str, Any]]) -> dict[str, Any]:
        """Make one picture with a stack.

        Raises:
            RuntimeError: it was not made.
        """
        request = {
            "type": "generate",
            "id": str(time.monotonic_ns()),
            "model": {"source": str(subject.folder), "kind": "folder"},
            "prompt": "a red heart on a white background",
            "seed": 1,
            "steps": STEPS,
            "width": SIDE,
            "height": SIDE,
            "guidance_scale": 3.0,
            "adapters": stack,
            "output": str(folder / "stack.png"),
        }
        event = self.ask(request, FINAL)
        if event["event"] != "done":
            raise RuntimeError(event.get("detail", event["event"]))
        return event

    def ask(self, message: dict[str, Any], answers: tuple[str, ...]) -> dict[str, Any]:
        """Send a message, and return the first event that answers it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] in answers:
                return event
        raise RuntimeError("The engine ended.")
