"""Every program here is a real process. Upper bounds on time are generous: the machine may be busy."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from imagehub.jobs.child import (
    Child,
    ChildDied,
    ChildLimits,
    ChildTimedOut,
    Outcome,
    environment_without_secrets,
    watch,
)
from imagehub.jobs.protocol import ChildExit, ExitCode
from imagehub.jobs.run_log import MAX_SENSITIVE, RunLog

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[3]
LIMITS = ChildLimits(wall_seconds=30, idle_seconds=30, grace_seconds=5)
PROMPT = "a very private castle\nof “glass”, by night"


class StopAfter:
    """A ``should_stop`` that says yes once it is told to, and notes when it was asked."""

    def __init__(self):
        self.is_set = False
        self.asked_at = []

    def __call__(self):
        self.asked_at.append(time.monotonic())
        return self.is_set

    def set(self, *_):
        self.is_set = True

    @property
    def longest_gap(self):
        return max(b - a for a, b in zip(self.asked_at, self.asked_at[1:], strict=False))


def never():
    return False


def is_done(message):
    return message["event"] == "done"


def is_running(pid):
    """A zombie that nobody has reaped yet does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def wait_for_event(child, name, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        messages = child.poll(1)
        for position, message in enumerate(messages, start=1):
            if message["event"] == name:
                child.give_back(messages[position:])
                return message
    raise AssertionError(f"no event {name!r}")


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path / "logs" / "run.log", limit_bytes=1_000_000)


@pytest.fixture
def launch(tmp_path, environment, log):
    children = []

    def start(*arguments, program="misbehave.py", **options):
        child = Child(
            [sys.executable, str(PROGRAMS / program), *map(str, arguments)], cwd=tmp_path, log=log, **options
        )
        child.start()
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def follow(launch):
    """Start a program and watch it, collecting its events."""

    def start(*arguments, limits=LIMITS, should_stop=never, program="misbehave.py", **options):
        child = launch(*arguments, program=program)
        child.events = []
        child.outcome = watch(
            child, limits=limits, on_event=child.events.append, should_stop=should_stop, **options
        )
        return child

    return start


class TestOneShot:
    def test_returns_when_the_program_has_finished(self, follow):
        child = follow("flood", 3)

        assert [event["step"] for event in child.events] == [0, 1, 2]
        assert child.outcome == Outcome(final=None, exit=ChildExit(0), stopped=False)
        assert not child.is_alive

    def test_delivers_a_flood_whole_and_in_order(self, follow):
        child = follow("flood", 20_000)

        assert [event["step"] for event in child.events] == list(range(20_000))
        assert child.skipped == 0

    def test_delivers_what_was_still_in_the_pipe_at_the_exit(self, launch):
        child = launch("flood", 200)
        wait_until(lambda: not child.is_alive, 20)
        events = []

        watch(child, limits=LIMITS, on_event=events.append, should_stop=never)

        assert len(events) == 200

    def test_delivers_all_to_a_slow_handler_of_a_program_long_gone(self, launch):
        child = launch("flood", 200)
        wait_until(lambda: not child.is_alive, 20)
        events = []

        def handle(event):
            events.append(event["step"])
            time.sleep(0.01 if len(events) < 50 else 0)

        watch(child, limits=LIMITS, on_event=handle, should_stop=never)

        assert events == list(range(200))

    @pytest.mark.parametrize(
        ("code", "name"),
        [(70, "bug"), (78, "out_of_memory"), (75, "stopped"), (69, "model_missing"), (3, "exit_3")],
    )
    def test_names_the_exit_of_a_program_that_failed(self, follow, launch, code, name):
        child = launch("exits", code)
        events = []

        with pytest.raises(ChildDied) as died:
            watch(child, limits=LIMITS, on_event=events.append, should_stop=never)

        assert died.value.exit.name == name
        assert events[0]["event"] == "last words"

    def test_says_which_signal_ended_it(self, follow):
        with pytest.raises(ChildDied) as died:
            follow("dies", int(signal.SIGSEGV))

        assert died.value.exit == ChildExit(-signal.SIGSEGV)
        assert died.value.exit.name == "SIGSEGV"

    def test_suspects_the_kernel_of_a_kill_it_did_not_send(self, follow):
        with pytest.raises(ChildDied, match="ran out of memory"):
            follow("dies", int(signal.SIGKILL))

    def test_runs_in_its_folder_and_group_with_the_given_environment(self, launch, tmp_path):
        child = launch("shows_limits", env={"COLOR": "teal", "PYTHONPATH": str(ROOT)})

        shown = wait_for_event(child, "environment")

        assert Path(shown["cwd"]) == tmp_path
        assert shown["group"] == shown["pid"] == child.pid
        assert (shown["COLOR"], shown["HOME"], shown["PYTHONUNBUFFERED"]) == ("teal", None, "1")
        assert wait_for_event(child, "stdin")["text"] == ""

    def test_raises_when_the_program_does_not_exist(self, tmp_path, log):
        before = open_descriptors()

        with pytest.raises(FileNotFoundError):
            Child([str(tmp_path / "nothing")], cwd=tmp_path, log=log).start()

        assert open_descriptors() == before


class TestTimeLimits:
    @pytest.mark.parametrize("way", ["silent", "closes_output", "closes_events", "stubborn"])
    def test_ends_a_program_that_falls_silent(self, launch, way):
        child = launch(way)
        limits = ChildLimits(wall_seconds=60, idle_seconds=1, grace_seconds=0.3)
        should_stop = StopAfter()
        began = time.monotonic()

        with pytest.raises(ChildTimedOut) as timed_out:
            watch(child, limits=limits, on_event=lambda _: None, should_stop=should_stop)

        assert (timed_out.value.which, timed_out.value.seconds) == ("idle", 1)
        assert 0.9 < time.monotonic() - began < 12
        assert child.exit.is_ours
        assert should_stop.longest_gap < 2
        assert not is_running(child.pid)

    def test_ends_a_program_that_never_falls_silent(self, launch):
        child = launch("endless")
        limits = ChildLimits(wall_seconds=1, idle_seconds=60, grace_seconds=0.5)

        with pytest.raises(ChildTimedOut) as timed_out:
            watch(child, limits=limits, on_event=lambda _: None, should_stop=never)

        assert timed_out.value.which == "wall"
        assert "longer than 1 second" in str(timed_out.value)

    def test_stops_in_the_middle_of_a_flood_that_is_slow_to_handle(self, launch):
        child = launch("endless")
        should_stop = StopAfter()
        handled, handled_before_asking = [], []

        def handle(message):
            handled.append(message)
            should_stop.is_set = len(handled) >= 10
            if not handled_before_asking:
                time.sleep(0.01)

        def ask(child):
            handled_before_asking.append(len(handled))
            child.signal_group(signal.SIGTERM)

        outcome = watch(child, limits=LIMITS, on_event=handle, should_stop=should_stop, ask_to_stop=ask)

        assert outcome.stopped
        assert handled_before_asking[0] < 100  # a pipe holds hundreds
        assert should_stop.longest_gap < 2

    def test_kills_a_program_that_ignores_the_request(self, launch):
        child = launch("stubborn")
        should_stop = StopAfter()
        limits = ChildLimits(wall_seconds=60, idle_seconds=60, grace_seconds=1)

        outcome = watch(child, limits=limits, on_event=should_stop.set, should_stop=should_stop)

        assert outcome == Outcome(None, ChildExit(-signal.SIGKILL, is_ours=True), stopped=True)
        assert should_stop.longest_gap < 2  # the lease is kept while the program dies

    def test_stop_kills_after_the_grace(self, launch):
        child = launch("stubborn")
        wait_for_event(child, "started")
        began = time.monotonic()

        ended = child.stop(0.3)

        assert ended == ChildExit(-signal.SIGKILL, is_ours=True)
        assert 0.25 < time.monotonic() - began < 10
        assert child.kill() == ended


class TestStopping:
    def test_lets_a_program_stop_by_itself(self, launch):
        child = launch("polite")
        should_stop = StopAfter()
        events = []

        def handle(message):
            events.append(message)
            should_stop.set()

        outcome = watch(child, limits=LIMITS, on_event=handle, should_stop=should_stop)

        assert outcome == Outcome(None, ChildExit(ExitCode.STOPPED), stopped=True)
        assert [event["event"] for event in events] == ["started", "stopped"]

    def test_talks_with_what_a_launcher_starts_that_passes_no_descriptors_on(self, launch):
        child = launch("launches", "polite")
        wait_for_event(child, "started")

        child.send({"type": "stop"})

        assert wait_for_event(child, "stopped")["step"] == 7
        wait_until(lambda: not child.is_alive)
        child.poll(1)
        assert child.kill().code == ExitCode.STOPPED

    def test_counts_an_end_by_its_own_signal_as_a_stop(self, follow):
        should_stop = StopAfter()
        should_stop.set()

        child = follow("silent", should_stop=should_stop)

        assert child.outcome == Outcome(None, ChildExit(-signal.SIGTERM, is_ours=True), stopped=True)

    def test_keeps_the_result_of_a_program_that_finished_all_the_same(self, launch):
        child = launch("flood", 5)
        wait_until(lambda: not child.is_alive, 20)

        outcome = watch(child, limits=LIMITS, on_event=lambda _: None, should_stop=lambda: True)

        assert outcome == Outcome(None, ChildExit(0), stopped=False)

    def test_reports_a_program_that_failed_while_it_stopped(self, launch):
        child = launch("late")
        should_stop = StopAfter()

        with pytest.raises(ChildDied) as died:
            watch(child, limits=LIMITS, on_event=should_stop.set, should_stop=should_stop)

        assert died.value.exit.name == "bug"

    @pytest.mark.parametrize("where", ["on_event", "should_stop"])
    def test_ends_the_group_at_once_when_a_callback_fails(self, launch, where):
        child = launch("stubborn", program="family.py")
        grandchild = wait_for_event(child, "started")["grandchild"]
        child.give_back([{"event": "started"}])

        def fail(*_):
            raise LookupError(where)

        callbacks = {"on_event": lambda _: None, "should_stop": never} | {where: fail}
        with pytest.raises(LookupError, match=where):
            watch(child, limits=LIMITS, **callbacks)

        assert child.exit == ChildExit(-signal.SIGKILL, is_ours=True)
        wait_until(lambda: not is_running(grandchild))


class TestFamily:
    @pytest.mark.parametrize("way", ["waits", "stubborn"])
    def test_takes_grandchildren_along(self, launch, way):
        child = launch(way, program="family.py")
        grandchild = wait_for_event(child, "started")["grandchild"]

        child.stop(0.3)

        wait_until(lambda: not is_running(grandchild))

    def test_ends_a_grandchild_that_outlives_the_program(self, follow):
        began = time.monotonic()

        child = follow("leaves", program="family.py")

        assert child.outcome.exit == ChildExit(0)
        assert time.monotonic() - began < 20
        wait_until(lambda: not is_running(child.events[0]["grandchild"]))

    def test_does_not_wait_for_pipes_that_an_escaped_process_holds(self, follow):
        child = follow("escapes", program="family.py")

        assert child.outcome.exit == ChildExit(0)
        wait_until(lambda: not child._output.is_alive())
        os.kill(child.events[0]["grandchild"], signal.SIGKILL)

    def test_dies_with_a_guard_that_is_killed(self, tmp_path, environment):
        guard = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "guard.py"), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        try:
            pid = int(guard.stdout.readline())
            assert is_running(pid)

            guard.kill()

            wait_until(lambda: not is_running(pid))
        finally:
            guard.kill()
            guard.wait()
            guard.stdout.close()

    def test_never_signals_the_group_of_a_program_that_is_gone(self, launch, monkeypatch):
        child = launch("exits", 0)
        child.kill()
        signals = []
        monkeypatch.setattr(os, "killpg", lambda *arguments: signals.append(arguments))

        child.signal_group(signal.SIGTERM)
        child.stop(0)
        child.kill()

        assert signals == []

    def test_signals_the_group_only_while_its_number_is_taken(self, launch, monkeypatch):
        is_taken = []
        send = os.killpg

        def note_and_send(group, number):
            is_taken.append(Path(f"/proc/{group}").exists())
            send(group, number)

        monkeypatch.setattr(os, "killpg", note_and_send)
        child = launch("leaves", program="family.py")

        watch(child, limits=LIMITS, on_event=lambda _: None, should_stop=never)

        assert is_taken == [True]

    def test_leaves_neither_descriptors_nor_zombies_nor_threads(self, launch):
        launch("exits", 0).kill()
        gc.collect()
        descriptors, threads = open_descriptors(), threading.active_count()
        pids = []

        for number in range(20):
            child = launch("stubborn" if number % 4 == 0 else "exits", 0)
            pids.append(child.pid)
            child.kill() if number % 2 == 0 else child.stop(10)

        assert open_descriptors() == descriptors
        assert threading.active_count() == threads
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def test_survives_that_somebody_else_reaps_its_program(self, launch):
        child = launch("exits", 0)
        os.waitpid(child.pid, 0)

        with pytest.raises(ChildDied) as died:
            watch(child, limits=LIMITS, on_event=lambda _: None, should_stop=never)

        assert died.value.exit.name == "unknown"


class TestForeignLines:
    def test_skips_and_counts_a_half_line(self, follow):
        child = follow("half_line")

        assert [event["event"] for event in child.events] == ["whole"]
        assert child.skipped == 1

    def test_skips_and_counts_what_is_no_message(self, follow):
        child = follow("foreign")

        assert [event["event"] for event in child.events] == ["one", "two"]
        assert child.skipped == 5


class TestWarm:
    def ask(self, child, request, **options):
        events = []
        child.send(request)
        options = {"limits": LIMITS, "should_stop": never, "is_final": is_done} | options
        return watch(child, on_event=events.append, **options), events

    def test_answers_one_conversation_after_another(self, launch):
        child = launch("warm")
        wait_for_event(child, "ready")

        for n in range(3):
            outcome, events = self.ask(child, {"type": "draw", "n": n})

            assert outcome.final["n"] == n
            assert (outcome.exit, outcome.stopped) == (None, False)
            assert [e["n"] for e in events if "n" in e] == [n, n]
            assert child.is_alive
        assert wait_for_event(child, "idle")

    def test_lives_on_after_a_stop_that_it_answers(self, launch):
        child = launch("warm")
        wait_for_event(child, "ready")

        outcome, _ = self.ask(
            child,
            {"type": "nothing"},
            should_stop=lambda: True,
            ask_to_stop=lambda child: child.send({"type": "stop"}),
        )

        assert outcome.final["stopped"] is True
        assert outcome.stopped
        assert child.is_alive

    @pytest.mark.parametrize(("request_type", "name"), [("die", "out_of_memory"), ("leave", "finished")])
    def test_tells_of_a_death_in_between(self, launch, request_type, name):
        child = launch("warm")
        wait_for_event(child, "ready")

        with pytest.raises(ChildDied) as died:
            self.ask(child, {"type": request_type})

        assert died.value.exit.name == name
        with pytest.raises(ChildDied):
            child.send({"type": "draw", "n": 1})

    def test_ends_when_it_does_not_answer(self, launch):
        child = launch("warm")
        wait_for_event(child, "ready")
        limits = ChildLimits(wall_seconds=30, idle_seconds=0.5, grace_seconds=0.3)

        with pytest.raises(ChildTimedOut):
            self.ask(child, {"type": "nothing"}, limits=limits)

        assert not child.is_alive

    def test_never_waits_for_a_program_that_does_not_read(self, launch):
        child = launch("deaf", 1)
        wait_for_event(child, "started")
        began = time.monotonic()

        for _ in range(4):
            child.send({"type": "text", "text": "x" * 1_000_000})

        assert time.monotonic() - began < 0.9
        wait_until(lambda: child.poll(0.01) == [] and not child._channel._outgoing)  # it reads after a second


class TestRunLog:
    def read(self, log):
        log.flush()
        return log.path.read_text()

    def test_collapses_progress_to_its_last_state(self, follow, log):
        follow("progress")

        assert self.read(log) == f"100.0%|{'#' * 50}|\n"

    def test_takes_what_a_program_prints_while_nobody_polls(self, launch, log):
        child = launch("chatter", 20_000)

        wait_until(lambda: not child.is_alive, 30)

        child.kill()
        assert self.read(log).splitlines() == [f"line {n}" for n in range(20_000)]

    def test_holds_no_secrets_and_no_prompts(self, launch, log):
        log.hide([PROMPT])
        child = launch("leaky", PROMPT)
        wait_until(lambda: not child.is_alive, 20)

        child.kill()

        text = self.read(log)
        assert "ValueError" in text
        for secret in ("private castle", "glass", "by night", "tok-42-tok", "hunter2", "k-99-k"):
            assert secret not in text

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_reads_line_ends_of_every_kind_in_pieces_of_any_size(self, log, size):
        data = b"one\r\ntwo\r 1%\r 2%\nthr\xffee\n\n\x1b[31mred\x1b[0m\nlast"

        for start in range(0, len(data), size):
            log.write(data[start : start + size])

        assert self.read(log) == "one\n 2%\nthr\ufffdee\n\nred\nlast\n"

    def test_cuts_a_line_without_end(self, log):
        for _ in range(100):
            log.write(b"x" * 50_000)
        log.write(b"\nnext\n")

        long, following = self.read(log).splitlines()

        assert len(long) < 10_000
        assert long.endswith("[line cut]")
        assert following == "next"

    def test_hides_a_prompt_that_the_cut_goes_through(self, tmp_path):
        prompt = "w" * 4000
        log = RunLog(tmp_path / "run.log", limit_bytes=10_000_000, sensitive=[prompt])

        log.write(prompt.encode() * 17 + b"\n")

        assert "www" not in self.read(log)

    def test_keeps_the_beginning_and_the_end_within_the_limit(self, tmp_path):
        folder = tmp_path / "run"
        log = RunLog(folder / "run.log", limit_bytes=10_000)

        for number in range(3000):
            log.write(f"line {number}\n".encode())
            assert sum(file.stat().st_size for file in folder.iterdir()) <= 20_000

        assert log.head_path.read_text().startswith("line 0\nline 1\n")
        assert self.read(log).startswith("[earlier lines left out]\nline 2")
        assert self.read(log).endswith("line 2998\nline 2999\n")

    def test_continues_the_file_of_an_earlier_attempt(self, log):
        log.write(b"first\n")

        again = RunLog(log.path, limit_bytes=10_000)
        again.write(b"unfinished")
        again.write_line("second, token=abc")

        assert self.read(again) == "first\nunfinished\nsecond, token=[redacted]\n"

    def test_warns_once_when_it_cannot_write(self, tmp_path, caplog):
        (tmp_path / "file").write_text("")
        log = RunLog(tmp_path / "file" / "run.log", limit_bytes=10_000)

        log.write(b"one\n")
        log.write(b"two\n")

        assert len(caplog.records) == 1
        assert str(tmp_path) not in caplog.text

    def test_survives_a_full_disk(self, log, caplog):
        log.path = Path("/dev/full")

        log.write(b"one\n" * 10)

        assert "No space left" in caplog.text

    def test_keeps_lines_of_two_threads_whole(self, log):
        threads = [
            threading.Thread(target=lambda letter=letter: [log.write_line(letter * 50) for _ in range(200)])
            for letter in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert set(self.read(log).splitlines()) == {"a" * 50, "b" * 50}

    def test_forgets_the_oldest_prompts_of_a_long_life(self, log):
        for number in range(MAX_SENSITIVE + 1):
            log.hide([f"prompt-{number:04}"])

        log.write(b"prompt-0000 prompt-0001 prompt-0128\n")

        assert self.read(log) == "prompt-0000 [redacted] [redacted]\n"


class TestEnvironment:
    def test_nothing_that_the_platform_is_told_reaches_a_child(self, monkeypatch):
        told = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
        harmless = {"WEB_CONCURRENCY", "PORT"}
        assert {"DATABASE_URL", "IMAGEHUB_S3_SECRET_KEY", "GOOGLE_CLIENT_SECRET"} <= set(told)
        for name in told:
            monkeypatch.setenv(name, "x")

        assert environment_without_secrets().keys() & set(told) <= harmless

    @pytest.mark.parametrize(
        "name",
        [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_PROFILE",
            "PGPASSWORD",
            "WANDB_API_KEY",
            "GITHUB_TOKEN",
            "smtp_password",
        ],
    )
    def test_nor_what_others_keep_there(self, monkeypatch, name):
        monkeypatch.setenv(name, "x")

        assert name not in environment_without_secrets()

    @pytest.mark.parametrize(
        "name",
        ["CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "PATH", "HF_HOME", "HF_TOKEN", "TOKENIZERS_PARALLELISM"],
    )
    def test_what_they_need_does(self, monkeypatch, name):
        monkeypatch.setenv(name, "x")

        assert environment_without_secrets()[name] == "x"

    @pytest.mark.parametrize("scheme", ["http://", ""])
    @pytest.mark.parametrize("name", ["https_proxy", "HTTP_PROXY"])
    def test_a_proxy_is_named_without_its_password(self, monkeypatch, name, scheme):
        monkeypatch.setenv(name, f"{scheme}user:sec@ret@proxy.example.com:3128")

        assert environment_without_secrets()[name] == f"{scheme}proxy.example.com:3128"
