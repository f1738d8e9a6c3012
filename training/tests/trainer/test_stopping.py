"""Asked to stop, it stops after the step at hand, and nothing that was asked to be kept is lost."""

import os
import signal

import pytest

from training.trainer.stopping import Interrupted, Stop, Stopping


def stop_when(matches, *, save=True):
    stop = Stop()

    def answer(event):
        if matches(event):
            stop.request(save=save)

    return {"stop": stop, "answer": answer}


def after_step(number):
    return lambda event: event["event"] == "validation" and event["step"] == number


def test_it_stops_within_one_step_and_saves(rig):
    rig = rig(validation_every=1)

    result = rig.train(**stop_when(after_step(2)))

    assert not result.is_finished
    assert result.events[-1] | {"event": "stopped", "step": 2, "saved": True} == result.events[-1]
    assert [event["step"] for event in result.of("checkpoint")] == [2]
    assert result.checkpoint(2)
    assert not result.of("finished")
    assert not rig.folder.export.exists()


def test_asked_to_discard_it_saves_nothing(rig):
    rig = rig(validation_every=1)

    result = rig.train(**stop_when(after_step(2), save=False))

    assert result.events[-1] | {"event": "stopped", "step": 2, "saved": False} == result.events[-1]
    assert not rig.folder.checkpoints.exists()


@pytest.mark.parametrize("phase", ["load", "cache_latents", "cache_text"])
def test_it_stops_before_the_first_step(rig, phase):
    result = rig().train(**stop_when(lambda event: event.get("phase") == phase))

    assert result.events[-1] | {"event": "stopped", "step": 0, "saved": False} == result.events[-1]
    assert not result.of("step")


def test_it_stops_while_it_draws_samples(rig):
    options = {"sample_every": 2, "sample_prompts": ("a ball", "another ball"), "sample_steps": 5}

    result = rig(**options).train(**stop_when(lambda event: event["event"] == "sample"))

    assert len(result.of("sample")) == 1
    assert result.events[-1] | {"event": "stopped", "step": 2, "saved": True} == result.events[-1]


@pytest.mark.parametrize(("at", "saved"), [(0, False), (3, True)])
def test_it_stops_while_it_measures_and_drops_what_is_half_done(rig, at, saved):
    phases = []

    def begins(event):
        if event.get("phase") == "validation" and event["done"] == 0:
            phases.append(event)
            return len(phases) == (1 if at == 0 else 2)
        return False

    result = rig(pictures=12, validation_every=3).train(**stop_when(begins))

    assert [event["step"] for event in result.of("validation")] == [0][: at // 3]
    assert result.events[-1] | {"event": "stopped", "step": at, "saved": saved} == result.events[-1]
    assert all(event["validation_loss"] is None for event in result.of("checkpoint"))


def test_a_stopped_resume_says_what_is_still_there(rig):
    rig = rig(validation_every=1)
    rig.train(**stop_when(after_step(2)))

    result = rig.train(**stop_when(lambda event: event.get("phase") == "cache_text"))

    assert result.events[-1] | {"event": "stopped", "step": 2, "saved": True} == result.events[-1]


def test_asked_after_the_last_step_it_finishes(rig):
    result = rig(validation_every=1).train(**stop_when(after_step(6)))

    assert result.is_finished


def test_whoever_discards_has_the_last_word():
    stop = Stop()
    stop.request(save=False)
    stop.request()

    assert not stop.save


class TestSignals:
    @pytest.fixture
    def stop(self):
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        stop = Stop()
        stop.listen_to_signals()
        yield stop
        for number, handler in before.items():
            signal.signal(number, handler)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_asks_and_the_second_does_not(self, stop, number):
        os.kill(os.getpid(), number)

        assert stop.is_requested
        assert stop.save
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)

    def test_loading_is_broken_off_even_where_all_errors_are_caught(self, stop):
        with pytest.raises(Stopping), stop.breakable():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Exception:  # noqa: BLE001 - as a library does
                pytest.fail("it was caught")

    def test_nothing_is_begun_that_would_be_broken_off(self, stop):
        stop.request()

        with pytest.raises(Stopping), stop.breakable():
            pytest.fail("it was begun")
