"""The main job on real input: the starter cards, from a shell, with everything running as it ships."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from django.conf import settings

from albums.models import Image
from generation.cards import CARDS
from generation.models import GenerationJob
from generation.tests.factories import starter_model
from imagehub import storage
from imagehub.jobs.models import JobStatus

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

TIMEOUT = 300


@pytest.fixture(autouse=True)
def _starter():
    starter_model()


@contextmanager
def demo(env: dict[str, str], log) -> Iterator[psutil.Popen]:
    """Run the demonstration, and leave nothing of it behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "manage.py", "demo", "--once", "--port", str(port)]
    with log.open("w") as output:
        process = psutil.Popen(
            argv,
            env=env,
            cwd=settings.BASE_DIR,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    family = [process]
    try:
        yield process
    finally:
        if process.is_running():
            family = [process, *process.children(recursive=True)]
        for member in family:
            if member.is_running():
                member.kill()


def descendants(process: psutil.Process, *words: str) -> list[psutil.Process]:
    """Return the processes below one whose command lines hold all the words."""
    found = []
    for child in process.children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue
        if all(word in line for word in words):
            found.append(child)
    return found


def still_there(family: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that live; one that waits to be reaped by init has ended."""
    return [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]


def wait_for_pictures(number: int, process: psutil.Process) -> None:
    deadline = time.monotonic() + TIMEOUT
    while GenerationJob.objects.filter(status=JobStatus.COMPLETED).count() < number:
        assert process.is_running(), "the demonstration ended early"
        assert time.monotonic() < deadline, "no pictures"
        time.sleep(0.02)


def assert_every_picture_exists_once() -> None:
    assert set(GenerationJob.objects.values_list("status", flat=True)) == {JobStatus.COMPLETED}
    images = list(Image.objects.all())
    assert sorted(image.name for image in images) == sorted(card.name for card in CARDS)
    assert all(card.picture in Image.objects.get(name=card.name).prompt for card in CARDS)
    for image in images:
        assert storage.path_of(image.storage_name).stat().st_size == image.size_bytes
    assert len(list((storage.root() / "images").rglob("*.png"))) == len(CARDS)


def test_makes_every_card_and_stops_cleanly(process_env, tmp_path):
    with demo(process_env, tmp_path / "log") as process:
        wait_for_pictures(1, process)
        family = process.children(recursive=True)
        assert process.wait(timeout=TIMEOUT) == 0, (tmp_path / "log").read_text()

    assert_every_picture_exists_once()
    assert not still_there(family)
    log = (tmp_path / "log").read_text()
    assert "Gallery" in log
    assert (tmp_path / "starter-cards.png").exists()
    assert "Traceback" not in log


def test_killing_processes_costs_no_picture_and_doubles_none(process_env, tmp_path):
    engine, worker, cluster = (
        ("generation.engine",),
        ("qcluster", "processing"),
        ("qcluster generation main",),
    )
    with demo(process_env, tmp_path / "log") as process:
        for pictures, words in ((2, engine), (4, worker), (6, cluster)):
            wait_for_pictures(pictures, process)
            [victim, *_] = descendants(process, *words)
            victim.send_signal(signal.SIGKILL)
        assert process.wait(timeout=TIMEOUT) == 0, (tmp_path / "log").read_text()

    assert_every_picture_exists_once()


@pytest.mark.once
def test_says_why_when_a_picture_cannot_be_made(process_env, tmp_path):
    model = starter_model()
    model.source = "nowhere"
    model.save()

    with demo(process_env, tmp_path / "log") as process:
        assert process.wait(timeout=TIMEOUT) != 0

    log = (tmp_path / "log").read_text()
    assert "was not made" in log
    assert "weights of the base model" in log


@pytest.mark.once
def test_an_interrupted_demonstration_leaves_no_process(process_env, tmp_path):
    with demo(process_env, tmp_path / "log") as process:
        wait_for_pictures(1, process)
        family = process.children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) != 0

    assert not still_there(family)
