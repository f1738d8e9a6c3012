"""What systemd and other supervisors are told of a cluster."""

import os
import socket
import time

import pytest

from imagehub.jobs.systemd import beat, notify


@pytest.mark.once
@pytest.mark.parametrize("address", ["{folder}/line", "@imagehub-{pid}"], ids=["path", "abstract"])
def test_systemd_hears_what_it_is_told(address, tmp_path, monkeypatch):
    address = address.format(folder=tmp_path, pid=os.getpid())
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(address.replace("@", "\0"))
        notify("READY=1")

        assert line.recv(100) == b"READY=1"


@pytest.mark.once
@pytest.mark.parametrize("address", ["", "/no/such/place"])
def test_nobody_needs_to_listen(address, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify("WATCHDOG=1")


@pytest.mark.once
def test_a_beat_makes_the_file_of_probes_young_again(tmp_path, monkeypatch):
    file = tmp_path / "heartbeat"
    monkeypatch.setenv("IMAGEHUB_HEARTBEAT", str(file))
    beat()
    os.utime(file, (0, 0))

    beat()

    assert time.time() - file.stat().st_mtime < 60


@pytest.mark.once
def test_a_beat_that_nobody_can_see_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setenv("IMAGEHUB_HEARTBEAT", "/no/such/place")

    beat()
