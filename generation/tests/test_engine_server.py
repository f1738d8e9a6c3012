"""The engine as the guard sees it: a process, two pipes, a log."""

import base64
import contextlib
import hashlib
import json
import os
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generation.tests.forked_engines import start_engine
from imagehub.jobs.protocol import EVENTS_FD, REQUESTS_FD, encode
from training.tests import tiny_models

FINAL = {"done", "failed", "cancelled"}
PATIENCE_SECONDS = 90
MANY_STEPS = 900


class Engine:
    """A running engine. Its events are collected as they come; its log is a file."""

    def __init__(self, log: Path, *options: str):
        requests_read, self._requests = os.pipe()
        events_read, events_write = os.pipe()
        self.log = log
        pipes = {EVENTS_FD: events_write, REQUESTS_FD: requests_read}
        self.process = start_engine(options, stdout=log, stderr=log, pipes=pipes)
        os.close(requests_read)
        os.close(events_write)
        self.events = []
        self.stops_listening = False
        self._news = threading.Condition()
        threading.Thread(target=self._listen, args=(events_read,), daemon=True).start()

    def _listen(self, events_read):
        with os.fdopen(events_read, "rb") as lines:
            for line in lines:
                with self._news:
                    self.events.append(json.loads(line))
                    self._news.notify_all()
                if self.stops_listening:
                    break

    def send(self, **message):
        os.write(self._requests, encode(message))

    def send_raw(self, line: bytes):
        os.write(self._requests, line)

    def hang_up(self):
        with contextlib.suppress(OSError):
            os.close(self._requests)

    def wait_for(self, matches):
        """Return the first event that matches."""
        with self._news:
            found = self._news.wait_for(
                lambda: next(filter(matches, self.events), None), timeout=PATIENCE_SECONDS
            )
        assert found, f"nothing of the sort; last events: {self.events[-5:]}; log: {self.log.read_text()}"
        return found

    def final(self, request_id):
        return self.wait_for(lambda event: event["event"] in FINAL and event["id"] == request_id)

    def forget(self, request_id):
        with self._news:
            self.events = [event for event in self.events if event.get("id") != request_id]

    def of(self, request_id, kind):
        return [event for event in self.events if event.get("id") == request_id and event["event"] == kind]

    def wait_for_step(self, request_id, step=1):
        event = self.wait_for(
            lambda event: (
                event.get("id") == request_id
                and (event["event"] in FINAL or (event["event"] == "step" and event["step"] >= step))
            )
        )
        assert event["event"] == "step", event

    def exit_status(self):
        self.process.join(PATIENCE_SECONDS)
        return self.process.exitcode

    def close(self):
        self.hang_up()
        self.process.kill()
        self.process.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    folders = {"sd15": tiny_models.build_sd15(root / "sd15"), "sdxl": tiny_models.build_sdxl(root / "sdxl")}
    folders["broken"] = Path(shutil.copytree(folders["sd15"], root / "broken"))
    (weights,) = (folders["broken"] / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:5000])
    folders["missing"] = root / "missing"
    return folders


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory):
    """One process for many tests: starting it takes seconds."""
    engine = Engine(tmp_path_factory.mktemp("engine") / "log.txt", "--device", "cpu")
    yield engine
    engine.close()


@pytest.fixture
def staging(tmp_path):
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


@pytest.fixture
def ask(models, staging, request):
    """Send a request and return its id, which is also the name of its file."""
    numbers = iter(range(100))

    def ask(engine, model="sd15", *, model_source=None, **fields):
        request_id = f"{request.node.name}-{next(numbers)}"
        message = {
            "type": "generate",
            "id": request_id,
            "model": {"source": str(model_source or models[model]), "kind": "folder"},
            "prompt": "a red heart",
            "negative_prompt": "",
            "seed": 3,
            "steps": 4,
            "width": 64,
            "height": 64,
            "guidance_scale": 7.5,
            "scheduler": None,
            "output": str(staging / f"{next(numbers)}.png"),
            "text": {"parameters": "a red heart", "imagehub": '{"prompt": "♥"}'},
        }
        engine.send(**message | fields)
        return request_id

    return ask


@pytest.fixture
def engine(shared_engine):
    """The shared engine, idle, and still idle and well afterwards."""
    before = len(shared_engine.events)
    yield shared_engine
    assert shared_engine.process.is_alive(), shared_engine.log.read_text()
    asked = {event["id"] for event in shared_engine.events[before:] if "id" in event}
    for request_id in asked:
        shared_engine.final(request_id)
        finals = [
            event
            for event in shared_engine.events
            if event.get("id") == request_id and event["event"] in FINAL
        ]
        assert len(finals) == 1


def pixels_of(event):
    with Image.open(event["output"]) as picture:
        return np.asarray(picture).copy()


def test_says_what_it_is_when_ready(engine):
    ready = engine.wait_for(lambda event: event["event"] == "ready")

    assert ready["pid"] == engine.process.pid
    assert (ready["device"], ready["dtype"], ready["threads"]) == ("cpu", "float32", 1)
    assert "torch" in ready["versions"]


def test_writes_the_picture_it_reports(engine, ask):
    done = engine.final(ask(engine, width=128))

    content = Path(done["output"]).read_bytes()
    assert done["event"] == "done"
    assert done["sha256"] == hashlib.sha256(content).hexdigest()
    assert done["size_bytes"] == len(content)
    assert (done["width"], done["height"]) == (128, 64)
    with Image.open(done["output"]) as picture:
        assert picture.size == (128, 64)
        assert picture.text == {"parameters": "a red heart", "imagehub": '{"prompt": "♥"}'}
    assert set(done["timings"]) == {"load", "adapters", "encode", "denoise", "decode", "save", "total"}


def test_reports_phases_and_every_step(engine, ask):
    request_id = ask(engine, steps=5)
    engine.final(request_id)

    assert [event["step"] for event in engine.of(request_id, "step")] == [1, 2, 3, 4, 5]
    phases = [event["phase"] for event in engine.of(request_id, "phase")]
    assert phases[-4:] == ["encode", "denoise", "decode", "save"]


def test_loads_a_model_once_for_many_requests(engine, ask):
    first = engine.final(ask(engine))

    requests = [ask(engine, seed=seed) for seed in range(5)]

    finals = [engine.final(request_id) for request_id in requests]
    assert {final["loads"] for final in finals} == {first["loads"]}
    assert not any(engine.of(request_id, "loaded") for request_id in requests)


def test_gives_the_same_pixels_whatever_happens_in_between(engine, ask, tmp_path):
    first = engine.final(ask(engine))

    cancelled = ask(engine, steps=MANY_STEPS, scheduler="euler_a")
    engine.wait_for_step(cancelled)
    engine.send(type="cancel", id=cancelled)
    others = [
        ask(engine, seed=9, scheduler="dpmpp_2m_karras"),
        ask(engine, "sdxl"),
        ask(engine, "missing"),
        ask(engine, "broken"),
        ask(engine, scheduler="nonsense"),
        ask(engine, output=str(tmp_path / "no" / "such" / "folder.png")),
    ]
    again = engine.final(ask(engine))

    assert engine.final(cancelled)["event"] == "cancelled"
    events = [engine.final(request_id) for request_id in others]
    assert [event.get("code", event["event"]) for event in events] == [
        "done",
        "done",
        "model_missing",
        "model_invalid",
        "unknown_scheduler",
        "storage_error",
    ]
    assert again["sha256"] == first["sha256"]
    assert np.array_equal(pixels_of(again), pixels_of(first))


class TestCancel:
    def test_ends_a_running_request_within_a_few_steps(self, engine, ask):
        request_id = ask(engine, steps=MANY_STEPS)
        engine.wait_for_step(request_id, 3)

        engine.send(type="cancel", id=request_id)

        assert engine.final(request_id)["event"] == "cancelled"
        assert len(engine.of(request_id, "step")) < MANY_STEPS / 2
        assert not engine.of(request_id, "done")

    def test_ends_a_waiting_request_before_it_begins(self, engine, ask):
        running = ask(engine, steps=200)
        waiting = ask(engine)

        engine.send(type="cancel", id=waiting)

        assert engine.final(waiting)["event"] == "cancelled"
        assert not engine.of(waiting, "phase")
        assert engine.final(running)["event"] == "done"

    def test_during_a_load_takes_effect_before_denoising(self, engine, ask, models):
        (models["sd15"] / "model_index.json").touch()  # so it is loaded again
        request_id = ask(engine)

        engine.send(type="cancel", id=request_id)

        assert engine.final(request_id)["event"] == "cancelled"
        assert not engine.of(request_id, "step")

    def test_of_an_unknown_or_finished_request_is_ignored(self, engine, ask):
        finished = ask(engine)
        engine.final(finished)

        engine.send(type="cancel", id=finished)
        engine.send(type="cancel", id="never heard of")

        engine.forget(finished)
        ask(engine, id=finished)
        assert engine.final(finished)["event"] == "done"


class TestPreviews:
    def test_are_sent_from_when_somebody_looks_until_nobody_does(self, engine, ask):
        request_id = ask(engine, steps=MANY_STEPS, previews=True)

        first = engine.wait_for(lambda event: event["event"] == "preview" and event["id"] == request_id)
        engine.send(type="previews", id=request_id, previews=False)
        engine.wait_for_step(request_id, first["step"] + 100)
        seen = len(engine.of(request_id, "preview"))
        engine.wait_for_step(request_id, first["step"] + 200)
        unseen = len(engine.of(request_id, "preview"))
        engine.send(type="cancel", id=request_id)

        assert base64.b64decode(first["data"]).startswith(b"\xff\xd8")
        assert first["step"] >= 1
        assert unseen == seen
        engine.final(request_id)


def test_tells_what_it_has_in_memory_while_it_works(engine, ask, models):
    engine.final(ask(engine))
    engine.forget("stats")
    request_id = ask(engine, steps=MANY_STEPS)
    engine.wait_for_step(request_id)

    engine.send(type="stats", id="stats")
    said = engine.wait_for(lambda event: event["event"] == "stats")

    assert not any(event["event"] in FINAL for event in engine.events if event.get("id") == request_id)
    engine.send(type="cancel", id=request_id)
    engine.final(request_id)
    model = next(model for model in said["models"] if model["source"] == str(models["sd15"]))
    assert model["size_bytes"] > 100_000
    assert model["uses"] >= 2
    assert said["adapters"] == []
    assert said["loads"] >= 1
    assert said["used_bytes"] > 50_000_000
    with engine._news:
        engine.events = [event for event in engine.events if event["event"] != "stats"]


def test_refuses_stacks_that_are_none(engine, ask, staging):
    one = {"id": "a", "source": str(staging / "a.safetensors"), "weight": 1.0}
    bad = [
        {},
        [one] * 2,
        [one | {"id": str(number)} for number in range(9)],
        [one | {"weight": 2.1}],
        [one | {"weight": None}],
        [one | {"source": "relative.safetensors"}],
        [one | {"source": str(staging / "a.pt")}],
        ["a"],
    ]

    assert {engine.final(ask(engine, adapters=stack))["code"] for stack in bad} == {"bad_request"}
    assert engine.final(ask(engine, adapters=[one]))["code"] == "adapter_missing"
    assert engine.final(ask(engine, adapters=[one | {"weight": 0}]))["event"] == "done"


class TestBadInput:
    def test_fails_the_request_and_nothing_else(self, engine, ask):
        bad = [ask(engine, width=63), ask(engine, seed=None), ask(engine, scheduler="pndm", steps=3)]

        assert [engine.final(request_id)["code"] for request_id in bad] == ["bad_request"] * 3
        assert engine.final(ask(engine))["event"] == "done"

    def test_ignores_lines_that_are_no_requests(self, engine, ask):
        engine.send_raw(b"not json\n[1, 2]\n{}\n\xff\xfe\n")
        engine.send(type="generate", id=5)
        engine.send(type="dance", id="x")

        assert engine.final(ask(engine))["event"] == "done"

    def test_failures_tell_owners_a_sentence_and_staff_the_rest(self, engine, ask, models):
        failed = engine.final(ask(engine, "broken"))

        assert failed["code"] == "model_invalid"
        assert failed["detail"].endswith(".")
        assert str(models["broken"]) not in failed["detail"]
        assert "Traceback" in failed["traceback"]


class TestFullDisk:
    def test_fails_the_request_and_keeps_earlier_pictures(self, engine, ask, staging):
        first = engine.final(ask(engine))
        output = staging / "full.png"
        # The device that is always full, under the very name that the picture is written to first.
        (staging / f".full.png.{engine.process.pid}.tmp").symlink_to("/dev/full")

        failed = engine.final(ask(engine, output=str(output)))

        assert failed["code"] == "disk_full"
        assert list(staging.iterdir()) == [Path(first["output"])]
        assert engine.final(ask(engine, output=str(output)))["sha256"] == first["sha256"]

    def test_so_does_a_limit_on_file_sizes(self, engine, ask, staging):
        _soft, hard = resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (100, hard))
        try:
            failed = engine.final(ask(engine))
        finally:
            resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (hard, hard))

        assert failed["code"] == "storage_error"
        assert list(staging.iterdir()) == []


def test_keeps_prompts_out_of_its_log(engine, ask):
    prompt = "a very long prompt " * 30 + "CANARY"

    for model in ("sd15", "sdxl"):
        done = engine.final(ask(engine, model, prompt=prompt, negative_prompt=prompt))
        assert done["event"] == "done"
        engine.final(ask(engine, model, prompt=prompt, scheduler="nonsense"))

    log = engine.log.read_text()
    assert "CANARY" not in log
    assert "long prompt" not in log
