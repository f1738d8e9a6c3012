"""The server's loop in this very process, where its edges can be slowed down and broken."""

import errno
import io
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from generation.engine import server as server_module
from generation.engine.rendering import Rendered
from generation.engine.server import PICTURES_IN_FLIGHT, Server
from imagehub.jobs import protocol
from imagehub.jobs.protocol import Channel, ExitCode, encode

PICTURE = Rendered(np.zeros((8, 8, 3), dtype=np.uint8), {"encode": 0.0, "denoise": 0.0, "decode": 0.0})


class Models:
    """Stands in for the cache: a load takes ``load_seconds``."""

    loads = 0

    def __init__(self):
        self.load_seconds = 0.0

    def find(self, reference):
        return None

    def load(self, reference):
        time.sleep(self.load_seconds)
        return SimpleNamespace()

    def release_memory(self):
        pass


@pytest.fixture
def sink():
    return io.BytesIO()


@pytest.fixture
def server(sink, monkeypatch):
    monkeypatch.setattr(server_module, "render", lambda *_: PICTURE)
    server = Server(Channel(sink, io.BytesIO()), Models())
    yield server
    server._writer.shutdown()


def message(request_id, tmp_path):
    return {
        "id": request_id,
        "model": {"source": "/model", "kind": "folder"},
        "prompt": "x",
        "seed": 1,
        "steps": 1,
        "width": 8,
        "height": 8,
        "guidance_scale": 1,
        "output": str(tmp_path / f"{request_id}.png"),
    }


def events_in(sink):
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def kinds_in(sink):
    return [event.get("phase", event["event"]) for event in events_in(sink)]


class TestHeartbeat:
    def test_is_heard_while_a_model_loads(self, server, sink, tmp_path, monkeypatch):
        monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.05)
        server._models.load_seconds = 0.5

        server._work(message("a", tmp_path))

        assert kinds_in(sink).count("load") >= 3

    def test_does_not_hide_a_hanging_denoiser(self, server, sink, tmp_path, monkeypatch):
        monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.05)
        heard = []

        def hang(*_):
            before = len(events_in(sink))
            time.sleep(0.5)
            heard.append(len(events_in(sink)) - before)
            return PICTURE

        monkeypatch.setattr(server_module, "render", hang)

        server._work(message("a", tmp_path))

        assert heard == [0]


class TestWriter:
    def test_lets_the_next_request_begin_while_a_picture_is_written(
        self, server, sink, tmp_path, monkeypatch
    ):
        disk = threading.Event()
        save = server_module.save_png
        monkeypatch.setattr(server_module, "save_png", lambda *args: disk.wait(10) and save(*args))

        for number in range(PICTURES_IN_FLIGHT):
            server._work(message(f"job-{number}", tmp_path))

        assert "done" not in kinds_in(sink)
        disk.set()
        server._writer.shutdown()
        assert kinds_in(sink).count("done") == PICTURES_IN_FLIGHT

    def test_holds_back_when_the_disk_cannot_keep_up(self, server, sink, tmp_path, monkeypatch):
        disk = threading.Event()
        save = server_module.save_png
        monkeypatch.setattr(server_module, "save_png", lambda *args: disk.wait(10) and save(*args))
        for number in range(PICTURES_IN_FLIGHT):
            server._work(message(f"job-{number}", tmp_path))

        one_more = threading.Thread(target=server._work, args=(message("late", tmp_path),))
        one_more.start()
        one_more.join(0.3)

        assert one_more.is_alive()
        disk.set()
        one_more.join(10)
        assert not one_more.is_alive()

    def test_reports_a_full_disk_and_writes_the_next_picture(self, server, sink, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            server._work(message("unlucky", tmp_path))
            while "failed" not in kinds_in(sink):
                time.sleep(0.01)
        server._work(message("lucky", tmp_path))
        server._writer.shutdown()

        finals = {event["id"]: event for event in events_in(sink) if event["event"] in ("done", "failed")}
        assert finals["unlucky"]["code"] == "disk_full"
        assert finals["lucky"]["event"] == "done"


def test_sigterm_in_the_middle_of_a_load_ends_it_at_once(sink, tmp_path):
    requests = io.BytesIO(encode({"type": "generate"} | message("a", tmp_path)))
    server = Server(Channel(sink, requests), Models())
    server._models.load_seconds = 60
    before = signal.getsignal(signal.SIGTERM)
    started_at = time.monotonic()
    killer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    killer.start()

    try:
        status = server.serve()
    finally:
        signal.signal(signal.SIGTERM, before)

    assert status == ExitCode.STOPPED
    assert time.monotonic() - started_at < 10
    assert kinds_in(sink) == ["ready", "load"]
