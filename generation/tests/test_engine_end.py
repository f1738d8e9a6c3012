"""How the engine ends. Each of these tests ends a process of its own."""

import os
import signal
import time

import pytest

from generation.tests.test_engine_server import FINAL, MANY_STEPS, Engine, ask, models, staging
from imagehub.jobs.protocol import ExitCode

__all__ = ["ask", "models", "staging"]  # fixtures


@pytest.fixture
def mortal(tmp_path):
    engine = Engine(tmp_path / "log.txt")
    engine.wait_for(lambda event: event["event"] == "ready")
    yield engine
    engine.close()


def test_the_end_comes_soon_after_sigterm_and_leaves_the_running_request_open(mortal, ask):
    finished = ask(mortal)
    running = ask(mortal, steps=MANY_STEPS)
    mortal.wait_for_step(running)
    sent_at = time.monotonic()

    os.kill(mortal.process.pid, signal.SIGTERM)

    assert mortal.exit_status() == ExitCode.STOPPED
    assert time.monotonic() - sent_at < 5
    assert mortal.final(finished)["event"] == "done"
    assert not [event for event in mortal.events if event.get("id") == running and event["event"] in FINAL]


def test_the_end_comes_soon_after_sigterm_when_idle(mortal):
    os.kill(mortal.process.pid, signal.SIGTERM)

    assert mortal.exit_status() == ExitCode.STOPPED


def test_the_end_comes_when_the_guard_hangs_up_and_all_is_answered(mortal, ask):
    requests = [ask(mortal, seed=seed) for seed in range(3)]

    mortal.hang_up()

    assert mortal.exit_status() == ExitCode.FINISHED
    assert [mortal.final(request_id)["event"] for request_id in requests] == ["done"] * 3


def test_the_end_comes_on_request(mortal, ask):
    last = ask(mortal)

    mortal.send(type="shutdown")

    assert mortal.exit_status() == ExitCode.FINISHED
    assert mortal.final(last)["event"] == "done"


def test_the_end_comes_when_nobody_listens_any_more(mortal, ask):
    mortal.stops_listening = True

    ask(mortal, steps=MANY_STEPS)

    assert mortal.exit_status() == ExitCode.STOPPED
    assert "Traceback" not in mortal.log.read_text()
