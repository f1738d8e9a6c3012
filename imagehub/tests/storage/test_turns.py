import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings as django_settings

from imagehub import storage
from imagehub.storage import StillBusy

HOLD = "import django; django.setup(); from imagehub import storage; import time\nwith storage.alone('a'): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holder(process_env):
    """Another process, which holds the turn of `a`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"},
        cwd=django_settings.BASE_DIR,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_one_thread_at_a_time():
    inside, most = 0, 0
    lock = threading.Lock()

    def enter(_):
        nonlocal inside, most
        with storage.alone("a"):
            with lock:
                inside += 1
                most = max(most, inside)
            os.sched_yield()
            with lock:
                inside -= 1

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(enter, range(60)))

    assert most == 1


@pytest.mark.django_db
def test_another_process_is_waited_for_but_not_for_ever(holder):
    with pytest.raises(StillBusy), storage.alone("a", wait_seconds=0.1):
        pass
    with storage.alone("b", wait_seconds=0.1):
        pass


@pytest.mark.django_db
def test_a_process_that_dies_lets_go(holder):
    holder.kill()

    with storage.alone("a", wait_seconds=10):
        pass


def test_leaves_a_bounded_number_of_files():
    for number in range(600):
        with storage.alone(f"key {number}"):
            pass

    assert len(list((storage.root() / ".locks").iterdir())) <= 256


def test_nobody_may_hold_two():
    with storage.alone("a"):
        with pytest.raises(RuntimeError), storage.alone("b"):
            pass
        with pytest.raises(RuntimeError), storage.alone("c"):  # the first is still held
            pass
    with storage.alone("b"):
        pass
