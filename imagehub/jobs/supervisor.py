"""Web and all clusters on one machine: each a service in a session of its own, started again when it dies.

General supervisors do not fit Django-Q: one that signals whole process groups hangs it, and one that knows
only the main process neither sees a cluster that has stopped taking messages nor clears what a killed one left.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from django.db import Error as DatabaseError

from imagehub.database import drop_connections
from imagehub.jobs import parent_death
from imagehub.jobs.presence import STALE, Watch
from imagehub.jobs.reaper import reap_now_and_then

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
CHECK_SECONDS = 5.0
EARLY_SECONDS = 60.0
"""A service that ends sooner than this is started again ever more slowly."""

MAX_BACKOFF_SECONDS = 30.0


def port_is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass
class Service:
    """A program that should always run. ``cluster`` names the presence that proves it works, if it has one."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    watch: Watch = field(default_factory=Watch)
    restarts: int = 0
    not_before: float = 0.0

    def start(self) -> None:
        """Start the program in a session of its own, so that a Ctrl-C reaches the supervisor alone."""
        self.process = subprocess.Popen(
            self.argv,
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=parent_death.before_exec(signal.SIGTERM),
        )
        self.started_at = time.monotonic()
        self.watch = Watch()

    def has_ended(self) -> bool:
        """Tell whether the main process has ended, without reaping it.

        Until it is reaped nobody else can be given its process id, so its group can safely be killed.
        """
        if self.process is None or self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def kill_group(self) -> None:
        """End whatever is left of the service at once."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Supervisor:
    """Keeps services running until it is asked to end."""

    def __init__(self, services: Sequence[Service], *, grace_seconds: float) -> None:
        self.services = services
        self.grace_seconds = grace_seconds
        self._stop = False
        self._next_check = 0.0

    def run(self) -> None:
        """Start everything, and keep it running until SIGTERM or SIGINT; then take everything down."""
        signal.signal(signal.SIGTERM, self._request_stop)
        signal.signal(signal.SIGINT, self._request_stop)
        try:
            while not self._stop:
                self._tend()
                time.sleep(POLL_SECONDS)
        finally:
            self._take_down()

    def _request_stop(self, *_: object) -> None:
        self._stop = True

    def _tend(self) -> None:
        now = time.monotonic()
        for service in self.services:
            if service.process is None:
                if now >= service.not_before:
                    self._start(service, now)
            elif service.has_ended():
                self._restart(service, "ended", now)
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            try:
                self._look_for_trouble(now)
            except DatabaseError as error:
                logger.warning("The database does not answer (%s); will look again", type(error).__name__)
                drop_connections()
                for service in self.services:
                    service.watch.be_patient()

    def _look_for_trouble(self, now: float) -> None:
        """Restart clusters whose workers have fallen silent, and take jobs from lost workers."""
        reap_now_and_then()
        for service in self.services:
            if (
                service.cluster
                and service.process is not None
                and service.watch.is_silent(service.process.pid)
            ):
                self._restart(service, f"took no message for {STALE.total_seconds():.0f} s", now)

    def _restart(self, service: Service, reason: str, now: float) -> None:
        """Clear the whole group of a service first, then start it again; wait longer each time it ends early."""
        if service.not_before == 0.0:
            service.kill_group()
            service.restarts = service.restarts + 1 if now - service.started_at < EARLY_SECONDS else 0
            delay = min(2.0**service.restarts - 1, MAX_BACKOFF_SECONDS) if service.restarts else 0.0
            service.not_before = now + delay
            logger.warning("%s %s; starting it again in %.0f s", service.name, reason, delay)
        if now >= service.not_before:
            self._start(service, now)

    @staticmethod
    def _start(service: Service, now: float) -> None:
        try:
            service.start()
            service.not_before = 0.0
        except OSError as error:  # no memory, no more processes: the others go on, and this one waits
            logger.error("%s could not be started: %s", service.name, error.strerror)
            service.not_before = now + MAX_BACKOFF_SECONDS

    def _take_down(self) -> None:
        """Ask every main process alone to end, wait out the grace time, then kill what is left of each group."""
        for service in self.services:
            if service.process is not None and not service.has_ended():
                service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.grace_seconds
        while time.monotonic() < deadline and not all(service.has_ended() for service in self.services):
            time.sleep(0.1)
        for service in self.services:
            if not service.has_ended():
                logger.warning("%s did not end within its grace time", service.name)
            service.kill_group()
