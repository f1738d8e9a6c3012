"""Run as ``python misbehave.py WAY [ARGUMENT]``."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from imagehub.jobs.protocol import EVENTS_FD, REQUESTS_FD, Channel, ExitCode

pipes = {name: os.environ[name] for name in (EVENTS_FD, REQUESTS_FD)}
channel = Channel.from_environment()


def events_fd() -> int:
    return channel._events.fileno()


def silent(argument: str) -> None:
    time.sleep(600)


def flood(argument: str) -> None:
    for number in range(int(argument)):
        channel.emit("step", step=number)


def endless(argument: str) -> None:
    while True:
        channel.emit("step")


def chatter(argument: str) -> None:
    for number in range(int(argument)):
        print(f"line {number}")  # noqa: T201


def progress(argument: str) -> None:
    for percent in range(1001):
        sys.stderr.write(f"\r{percent / 10:5.1f}%|{'#' * (percent // 20)}|")
    sys.stderr.write("\n")


def stubborn(argument: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel.emit("started")
    time.sleep(600)


def closes_output(argument: str) -> None:
    os.close(1)
    os.close(2)
    channel.emit("started")
    time.sleep(600)


def closes_events(argument: str) -> None:
    channel.emit("started")
    os.close(events_fd())
    time.sleep(600)


def dies(argument: str) -> None:
    channel.emit("started")
    os.kill(os.getpid(), int(argument))
    time.sleep(600)


def exits(argument: str) -> None:
    channel.emit("last words")
    sys.exit(int(argument))


def half_line(argument: str) -> None:
    channel.emit("whole")
    os.write(events_fd(), b'{"event": "ha')


def foreign(argument: str) -> None:
    os.write(events_fd(), b'Loading...\n[1, 2]\n\n\xff\xfe\n"text"\n')
    channel.emit("one")
    for _ in range(80):
        channel._events.write(b"x" * 65536)
    os.write(events_fd(), b"\n")
    sys.stdout.write("y" * 5_000_000)
    channel.emit("two")


def polite(argument: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.emit("started")
    for request in channel.requests():
        if request["type"] == "stop":
            channel.emit("stopped", step=7)
            sys.exit(ExitCode.STOPPED)


def late(argument: str) -> None:
    """Fails while it stops."""

    def fail(*_: object) -> None:
        os._exit(ExitCode.BUG)

    signal.signal(signal.SIGTERM, fail)
    channel.emit("started")
    time.sleep(600)


def warm(argument: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.emit("ready")
    for request in channel.requests():
        if request["type"] == "stop":
            channel.emit("done", stopped=True)
        elif request["type"] == "die":
            os._exit(ExitCode.OUT_OF_MEMORY)
        elif request["type"] == "leave":
            sys.exit()
        elif request["type"] == "draw":
            channel.emit("progress", n=request["n"])
            channel.emit("done", n=request["n"])
            channel.emit("idle")


def deaf(argument: str) -> None:
    channel.emit("started")
    time.sleep(float(argument))
    size = sum(len(request["text"]) for request in channel.requests() if request["type"] == "text")
    channel.emit("read", size=size)


def leaky(argument: str) -> None:
    print(f"prompt: {argument}")  # noqa: T201
    print({"prompt": argument, "token": "tok-42-tok"})  # noqa: T201
    print("GET https://user:hunter2@example.org/v1?key=k-99-k", flush=True)  # noqa: T201
    raise ValueError(argument)


def launches(argument: str) -> None:
    """Start another program as launchers do, without the descriptors, and leave it the talking."""
    environment = os.environ | pipes
    sys.exit(subprocess.run([sys.executable, __file__, argument], env=environment, check=False).returncode)


def shows_limits(argument: str) -> None:
    here = {name: os.environ.get(name) for name in ("PYTHONUNBUFFERED", "COLOR", "HOME")}
    channel.emit("environment", cwd=str(Path.cwd()), group=os.getpgrp(), pid=os.getpid(), **here)
    channel.emit("stdin", text=sys.stdin.read())


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")
