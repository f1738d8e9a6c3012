"""A PostgreSQL and a Redis of our own, which may be treated badly."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from bench.instance import DidNotStart, free_port
from imagehub.jobs import parent_death

START_SECONDS = 60.0
BINARIES = Path("/usr/lib/postgresql")
"""Where Debian keeps them, by version."""


class Postgres:
    """A server on the loopback with a folder of its own. It refuses to be root, so root lends it to ``postgres``."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self._user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        self._folder = Path(tempfile.mkdtemp(prefix="imagehub-chaos-pg-"))
        if self._user:
            shutil.chown(self._folder, **self._user)
        data = str(self._folder / "data")
        argv = [_program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(argv, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, **self._user)
        self._argv = [_program("postgres"), "-D", data, "-p", str(self.port), "-h", "127.0.0.1"]
        self._argv += ["-k", str(self._folder), "-c", "max_connections=200"]
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        with (self._folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                self._argv,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=parent_death.before_exec(signal.SIGQUIT),
                **self._user,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            time.sleep(0.1)
        raise DidNotStart((self._folder / "log.txt").read_text()[-2000:])

    def stop(self) -> None:
        """End it at once, in what it calls immediate mode: every transaction is lost, and the next start recovers."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(START_SECONDS)

    def remove(self) -> None:
        """End it for good."""
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class Redis:
    """A server on the loopback that keeps nothing."""

    name = "Redis"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "/"]
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=parent_death.before_exec(signal.SIGKILL),
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
            ):
                connection.sendall(b"PING\r\n")
                if connection.recv(5) == b"+PONG":
                    return
            time.sleep(0.05)
        raise DidNotStart("redis-server does not answer.")

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it stand still: it takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it for good."""
        self.stop()


def _program(name: str) -> str:
    """Find a program of PostgreSQL.

    Raises:
        DidNotStart: it is not installed.
    """
    newest = sorted(BINARIES.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    path = os.pathsep.join([*map(str, newest), os.environ.get("PATH", "")])
    if found := shutil.which(name, path=path):
        return found
    raise DidNotStart(f"PostgreSQL's {name} is not installed.")
