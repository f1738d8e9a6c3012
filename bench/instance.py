"""A temporary ImageHub: its own folder, database and port, on the loopback only; everything it starts is ended."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench.client import Client
from bench.subject import GUIDANCE_SCALE, ROOT, SIDE, STEPS, Subject, choose_subject
from imagehub.jobs import parent_death

START_SECONDS = 120.0
STOP_SECONDS = 60.0

ADD_MODEL = f"""
from training.models import BaseModel
BaseModel.objects.create(
    name="bench", kind="folder", source="bench", default_width={SIDE}, default_height={SIDE},
    default_steps={STEPS}, default_guidance_scale={GUIDANCE_SCALE},
)
"""

ADD_IMAGES = """
import hashlib
from albums.models import Image
Image.objects.bulk_create(
    Image(
        name=f"bench-{n}.png", visibility="public", storage_name=f"images/00/00/{n}.png", size_bytes=9000,
        sha256=hashlib.sha256(str(n).encode()).hexdigest(), width=64, height=64, format="png", seed=n, steps=25,
        prompt="a red heart on a white background", guidance_scale=4.0, base_model="starter", source_kind="upload",
    )
    for n in range(%d)
)
"""


class DidNotStart(Exception):
    """A program ended early or did not answer in time; its log's end is in the text."""


class Instance:
    """A database that is migrated, a user with a token, and the means to start programs on it."""

    def __init__(self, folder: Path, *, database_url: str = "", extra_app: str = "") -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self.env = _clean_environment() | {
            "IMAGEHUB_VAR": str(folder),
            "IMAGEHUB_CONFIG": str(_write_config(folder)),
            "DATABASE_URL": database_url or f"sqlite:///{folder / 'imagehub.sqlite3'}",
            "IMAGEHUB_SECRET_KEY": secrets.token_hex(32),
            "IMAGEHUB_EXTRA_APPS": extra_app,
            "IMAGEHUB_LOG_LEVEL": "WARNING",
        }
        self.manage("migrate", "--verbosity", "0")
        self.token = self.manage("create_token", "--email", "bench@localhost", "--staff").split()[-1]

    def manage(self, *arguments: str) -> str:
        """Run one command of ImageHub and return what it printed."""
        argv = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DidNotStart(f"{' '.join(arguments[:1])}: {done.stderr[-2000:]}")
        return done.stdout

    def add_subject(self, scratch: Path) -> Subject:
        """Make the model of the benches known to this instance."""
        subject = choose_subject(scratch)
        if not subject.is_trained:
            shutil.copytree(subject.folder, self.folder / "models" / subject.name)
            self.manage("shell", "-v", "0", "-c", ADD_MODEL)
        return subject

    def add_images(self, count: int) -> None:
        """Insert public images without files, so that a list has something to list."""
        self.manage("shell", "-v", "0", "-c", ADD_IMAGES % count)

    @contextmanager
    def supervised(self) -> Iterator["Service"]:
        """Run everything, exactly as ``make run`` does, until the block ends."""
        port = free_port()
        argv = [sys.executable, "manage.py", "supervise", "--port", str(port), "--grace", "20"]
        with self.serving(argv, port, probe="/api/health/ready") as service:
            yield service

    @contextmanager
    def serving(
        self, argv: Sequence[str], port: int, *, probe: str = "/api/health/live"
    ) -> Iterator["Service"]:
        """Run a program until the block ends; yield when it answers on its port."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours to pass on
                preexec_fn=parent_death.before_exec(signal.SIGTERM),
            )
        try:
            self._wait_for(process, f"http://127.0.0.1:{port}{probe}")
            yield Service(process.pid, port, self.token)
        finally:
            _end(process)

    def _wait_for(self, process: subprocess.Popen[bytes], url: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise DidNotStart(f"{' '.join(process.args)}\n{self.log.read_text()[-3000:]}")  # type: ignore[arg-type]


class Service:
    """A running program that answers HTTP."""

    def __init__(self, pid: int, port: int, token: str) -> None:
        self.pid = pid
        self.port = port
        self.token = token

    def client(self) -> Client:
        return Client(self.port, self.token)


@contextmanager
def temporary_instance(*, database_url: str = "", extra_app: str = "") -> Iterator[Instance]:
    """Make an instance and remove all of it at the end."""
    with tempfile.TemporaryDirectory(prefix="imagehub-bench-", ignore_cleanup_errors=True) as folder:
        yield Instance(Path(folder), database_url=database_url, extra_app=extra_app)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _clean_environment() -> dict[str, str]:
    """Return the environment without what would lead to somebody's real instance."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEHUB_")}
    path = os.pathsep.join(part for part in [str(ROOT), os.environ.get("PYTHONPATH", "")] if part)
    return kept | {"REDIS_URL": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "IMAGEHUB_ENV": "development"}


def _write_config(folder: Path) -> Path:
    """Copy the project's configuration, with all rate limits off."""
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    for limit in content.get("rate_limits", {}).values():
        limit["limit"] = 0
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
