"""The guarded child: a program in a process group of its own that always ends, and ends on time.

``Child`` starts, feeds, reads and ends one program; ``watch`` follows one conversation with it. The
program's side is ``imagehub.jobs.protocol``. Nothing here knows Django, jobs or rows.
"""

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagehub.jobs import parent_death
from imagehub.jobs.protocol import STATUS_LOST, ChildExit, ExitCode, GuardChannel
from imagehub.jobs.run_log import RunLog

logger = logging.getLogger(__name__)

Message = dict[str, Any]

CHECK_SECONDS = 0.2
"""``watch`` asks ``should_stop`` this often, which also beats the heart of the job's lease."""

DRAIN_SECONDS = 1.0
"""What is left in the pipes is read this long after the exit, should a process still hold them open."""

GIVE_UP_SECONDS = 15.0
"""A process that SIGKILL has not ended by then hangs inside the kernel (a dead disk, a GPU driver)."""

_TURN_SECONDS = 0.1
_LAST_TURN_SECONDS = 0.02


OURS = re.compile("IMAGEHUB_|GOOGLE_|AWS_|DATABASE_URL$|REDIS_URL$|EMAIL_URL$|SENTRY_")
"""What the platform itself is told. Its child programs are told all they need by their requests."""

SECRET = re.compile("PASSWORD|(^|_)(SECRET|PASSWD|TOKEN|KEY|APIKEY|CREDENTIALS?)(_|$)", re.IGNORECASE)
NEEDED = frozenset({"HF_TOKEN"})
"""Of what sounds like a secret: base models of the hub that not everybody may have are fetched by the program that loads them."""

USER_OF_PROXY = re.compile("^([a-z0-9+]+://)?[^/]*@")


def environment_without_secrets() -> dict[str, str]:
    """Return this process's environment for a child program, without what none needs to know: they load other people's files.

    The address of a proxy is passed on without its name and password.
    """
    return {
        name: USER_OF_PROXY.sub(r"\1", value) if name.lower().endswith("_proxy") else value
        for name, value in os.environ.items()
        if name in NEEDED or not (OURS.match(name) or SECRET.search(name))
    }


@dataclass(frozen=True)
class ChildLimits:
    """``idle_seconds`` may pass between two events; ``grace_seconds`` between being asked to end and SIGKILL."""

    wall_seconds: float
    idle_seconds: float
    grace_seconds: float


class ChildTimedOut(Exception):
    """A program was ended because it took too long, or was silent for too long."""

    def __init__(self, which: Literal["wall", "idle"], seconds: float) -> None:
        said = "It took longer than" if which == "wall" else "It gave no sign of life for"
        super().__init__(f"{said} {seconds:g} seconds and was ended.")
        self.which = which
        self.seconds = seconds


class ChildDied(Exception):
    """A program ended that should have gone on, or ended with a failure."""

    def __init__(self, exit: ChildExit) -> None:  # noqa: A002 - the word of the interface
        super().__init__(exit.description)
        self.exit = exit


@dataclass(frozen=True)
class Outcome:
    """How a conversation ended.

    ``final`` is the event that ended it, for a program that lives on; ``exit`` how the program ended,
    for one that does not. ``stopped`` says that it was asked to stop and did not simply finish; next
    to a ``final`` it says no more than that a stop was asked for: the event itself tells the rest.
    """

    final: Message | None
    exit: ChildExit | None
    stopped: bool


class Child:
    """One program, its process group and its three pipes. Belongs to the thread that started it."""

    _channel: GuardChannel
    _output: threading.Thread

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, log: RunLog, env: Mapping[str, str] | None = None
    ) -> None:
        """Describe a program. ``env`` replaces the environment, as for ``subprocess``."""
        self.log = log
        self.exit: ChildExit | None = None
        """How it ended; set only after its last event was delivered and its last output logged."""
        self._argv = list(argv)
        self._cwd = cwd
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._returned: list[Message] = []
        self._signals: set[int] = set()
        self._seen: ChildExit | None = None
        self._drain_until = float("inf")
        self._give_up_at = float("inf")

    def start(self) -> None:
        """Start the program. The thread that calls this must outlive it: see ``parent_death``.

        Raises:
            OSError: it cannot be started.
        """
        if self._process is not None:
            raise RuntimeError("A child is started once.")
        channel = GuardChannel()
        output, child_output = os.pipe()
        os.set_blocking(output, False)
        environment = os.environ if self._env is None else self._env
        try:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self._cwd,
                env={**environment, **channel.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=child_output,
                stderr=child_output,
                pass_fds=channel.child_ends,
                start_new_session=True,
                preexec_fn=parent_death.before_exec(),
            )
        except BaseException:
            channel.close()
            os.close(output)
            raise
        finally:
            os.close(child_output)
        channel.close_child_ends()
        self._channel = channel
        self._output = threading.Thread(
            target=self.log.carry,
            args=(output,),
            kwargs={"is_over": lambda: time.monotonic() >= self._drain_until},
            name=f"output of {self.pid}",
            daemon=True,
        )
        self._output.start()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        if self._process is None:
            raise RuntimeError("The child has not been started.")
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._look() is None

    @property
    def skipped(self) -> int:
        """How many lines on the event pipe were foreign, too long or unfinished."""
        return self._channel.skipped if self._process else 0

    def send(self, message: Message) -> None:
        """Send a request. Never waits: what the program does not take yet is kept until a later ``poll``.

        Raises:
            ChildDied: the program is gone.
        """
        if not self.is_alive:
            raise ChildDied(self._seen or ChildExit(STATUS_LOST))
        self._channel.send(message)

    def poll(self, timeout: float) -> list[Message]:
        """Wait up to ``timeout`` seconds for events, and return those that came.

        After the exit it returns what was still in the pipe; when that is all, ``exit`` is set.
        """
        if self._returned:
            messages, self._returned = self._returned, []
            return messages
        if self.exit is not None:
            return []
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            # The pipes do not tell of the exit when a grandchild holds them or they were closed before.
            turn = _LAST_TURN_SECONDS if self._seen or self._channel.is_dry else _TURN_SECONDS
            messages = self._channel.exchange(max(0.0, min(left, turn)))
            self._settle()
            if messages or self.exit is not None or left <= 0:
                return messages

    def give_back(self, messages: Sequence[Message]) -> None:
        """Hand back events that are for later; the next ``poll`` returns them first."""
        self._returned = [*messages, *self._returned]

    def signal_group(self, number: int) -> None:
        """Send a signal to every process of the group. Harmless after the exit."""
        if self._seen is not None or self._look() is not None:
            return
        self._signals.add(number)
        if number == signal.SIGKILL:
            self._give_up_at = min(self._give_up_at, time.monotonic() + GIVE_UP_SECONDS)
        self._kill_group(number)

    def stop(self, grace_seconds: float) -> ChildExit:
        """End it: SIGTERM, up to ``grace_seconds`` of grace, SIGKILL. Events that still come are dropped."""
        self.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while self.exit is None and (left := deadline - time.monotonic()) > 0:
            self.poll(left)
        return self.kill()

    def kill(self) -> ChildExit:
        """End it at once with its whole group, and tidy up. Returns how it ended, also if long ago."""
        self.signal_group(signal.SIGKILL)
        while self.exit is None:
            self.poll(_TURN_SECONDS)
        return self.exit

    def _look(self) -> ChildExit | None:
        """Return how the program ended, without reaping it, or None while it lives.

        As long as it is not reaped its process id, and so the id of its group, cannot be given to
        anybody else: the group can be killed without fear of hitting a stranger.
        """
        if self._seen is None and self._process is not None:
            try:
                status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._seen = ChildExit(STATUS_LOST)
                return self._seen
            if status is not None:
                has_exited = status.si_code == os.CLD_EXITED
                code = status.si_status if has_exited else -status.si_status
                self._seen = ChildExit(code, is_ours=-code in self._signals)
        return self._seen

    def _settle(self) -> None:
        """Once the program has exited: kill what is left of its group, empty the pipes, reap it last."""
        now = time.monotonic()
        if self.exit is not None or self._process is None:
            return
        seen = self._look()
        if seen is None:
            if now < self._give_up_at:
                return
            logger.error("Process %s is still there %s s after SIGKILL", self.pid, GIVE_UP_SECONDS)
            seen = self._seen = ChildExit(-signal.SIGKILL, is_ours=True)
        if self._drain_until == float("inf"):
            if seen.code != STATUS_LOST:
                self._kill_group(signal.SIGKILL)
            self._drain_until = now + DRAIN_SECONDS
        is_dry = self._channel.is_dry and not self._output.is_alive()
        if is_dry or now >= self._drain_until:
            self._channel.close()
            self._output.join(DRAIN_SECONDS)
            self._process.poll()  # reaps
            self.exit = seen

    def _kill_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def watch(
    child: Child,
    *,
    limits: ChildLimits,
    on_event: Callable[[Message], None],
    should_stop: Callable[[], bool],
    ask_to_stop: Callable[[Child], None] | None = None,
    is_final: Callable[[Message], bool] | None = None,
) -> Outcome:
    """Follow a started child through one conversation.

    Without ``is_final`` the conversation lasts until the program has ended. With it, it lasts until
    the first event of which it is true, and the program lives on. ``should_stop`` is asked several
    times a second until the very end. Whatever it or ``on_event`` raises ends the whole group at once.

    Raises:
        ChildTimedOut: it took too long or was silent for too long; it has been ended.
        ChildDied: it ended with a failure, or before its final event, without having been asked to.
    """
    try:
        return _follow(
            child, limits, on_event, _Pulse(should_stop), ask_to_stop or ask_by_message_and_signal, is_final
        )
    except BaseException:
        child.kill()
        raise


def ask_by_message_and_signal(child: Child) -> None:
    """Ask a program to stop in both of the ways it may listen to."""
    child.send({"type": "stop"})
    child.signal_group(signal.SIGTERM)


class _Pulse:
    """Asks ``should_stop`` whenever it is due, and remembers a yes."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self.wants_stop = False
        self._should_stop = should_stop
        self._due = 0.0

    def beat(self) -> float:
        """Ask if it is time to; return the seconds until the next time."""
        if time.monotonic() >= self._due:
            self.wants_stop = self._should_stop() or self.wants_stop
            self._due = time.monotonic() + CHECK_SECONDS
        return max(0.0, self._due - time.monotonic())


def _follow(
    child: Child,
    limits: ChildLimits,
    on_event: Callable[[Message], None],
    pulse: _Pulse,
    ask_to_stop: Callable[[Child], None],
    is_final: Callable[[Message], bool] | None,
) -> Outcome:
    started = last_event = time.monotonic()
    stop_asked = False
    timed_out: ChildTimedOut | None = None
    kill_at: float | None = None
    while True:
        messages = child.poll(pulse.beat())
        if not messages and child.exit is not None:
            if timed_out is not None:
                raise timed_out
            return _judge(child.exit, stop_asked=stop_asked, may_finish=is_final is None)
        turn_ends = time.monotonic() + CHECK_SECONDS
        for position, message in enumerate(messages, start=1):
            on_event(message)
            last_event = time.monotonic()
            is_end = is_final is not None and timed_out is None and is_final(message)
            if is_end or last_event >= turn_ends:  # even a flood leaves time for what is below
                child.give_back(messages[position:])
                if is_end:
                    return Outcome(final=message, exit=None, stopped=stop_asked)
                break
        pulse.beat()
        now = time.monotonic()
        if kill_at is not None:
            if now >= kill_at:
                child.signal_group(signal.SIGKILL)
        elif pulse.wants_stop:
            stop_asked = True
            kill_at = now + limits.grace_seconds
            with suppress(ChildDied):  # then the next turn finds out how
                ask_to_stop(child)
        elif timed_out := _exceeded(limits, wall=now - started, idle=now - last_event):
            kill_at = now + limits.grace_seconds
            child.signal_group(signal.SIGTERM)


def _exceeded(limits: ChildLimits, *, wall: float, idle: float) -> ChildTimedOut | None:
    if wall >= limits.wall_seconds:
        return ChildTimedOut("wall", limits.wall_seconds)
    if idle >= limits.idle_seconds:
        return ChildTimedOut("idle", limits.idle_seconds)
    return None


def _judge(ended: ChildExit, *, stop_asked: bool, may_finish: bool) -> Outcome:
    if may_finish and ended.code == ExitCode.FINISHED:
        return Outcome(final=None, exit=ended, stopped=False)
    is_stop = ended.is_ours or ended.code in (ExitCode.FINISHED, ExitCode.STOPPED, ExitCode.INTERRUPTED)
    if stop_asked and is_stop:
        return Outcome(final=None, exit=ended, stopped=True)
    raise ChildDied(ended)
