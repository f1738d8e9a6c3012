"""Web servers as they ship, sharing one Redis that freezes and dies: one budget, and no request fails for it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.message import Message
from threading import Barrier

import pytest
from django.conf import settings as django_settings

from generation.tests.factories import starter_model
from imagehub.accounts.services import create_token
from imagehub.accounts.tests.factories import UserFactory

pytestmark = [
    pytest.mark.skipif(
        not (django_settings.REDIS_URL and shutil.which("redis-server")),
        reason="needs REDIS_URL, and the program redis-server",
    ),
    pytest.mark.django_db(transaction=True),
]

LIMIT = 10
THREADS = 20


@pytest.fixture
def redis(redis_server):
    return redis_server()


@pytest.fixture
def servers(process_env, redis, set_config) -> Iterator[list[str]]:
    """Two web processes that share a database, a configuration and a Redis."""
    starter_model()
    set_limit(set_config, LIMIT)
    processes, addresses = [], []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        argv = [sys.executable, "-m", "uvicorn", "imagehub.asgi:application", "--port", str(port)]
        processes.append(
            subprocess.Popen(
                [*argv, "--log-level", "error", "--timeout-graceful-shutdown", "2"],
                env=process_env | {"REDIS_URL": redis.url, "WEB_CONCURRENCY": "1"},
                cwd=django_settings.BASE_DIR,
            )
        )
        addresses.append(f"http://127.0.0.1:{port}")
    try:
        for address in addresses:
            wait_for(address)
        yield addresses
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=20)


def wait_for(address: str) -> None:
    for _ in range(600):
        with suppress(OSError):
            return urllib.request.urlopen(f"{address}/api/health/live", timeout=5).close()
        time.sleep(0.1)
    raise TimeoutError(address)


def set_limit(set_config, limit: int) -> None:
    set_config(
        "storage: {minimum_free_bytes: 0}\n"
        f"rate_limits: {{generate: {{limit: {limit}, window_seconds: 86400}}}}\n"
    )


def new_token() -> str:
    _, secret = create_token(UserFactory(staff=True), name="test", expires_at=None)
    return secret


def submit(address: str, token: str, spoofed: str = "192.0.2.1") -> tuple[int, Message]:
    request = urllib.request.Request(
        f"{address}/api/generate",
        data=json.dumps({"prompt": "a red heart"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {token}",
            "X-Forwarded-For": spoofed,
            "Forwarded": f"for={spoofed}",
            "X-Real-IP": spoofed,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def submit_together(servers: list[str], token: str) -> Counter[int]:
    """Send one request in each of many threads at once, to the servers in turn; count the answers by status."""
    together = Barrier(THREADS)

    def one(number: int) -> int:
        together.wait()
        return submit(servers[number % len(servers)], token, f"198.51.100.{number}")[0]

    with ThreadPoolExecutor(THREADS) as pool:
        return Counter(pool.map(one, range(THREADS)))


def test_all_processes_share_one_budget_exactly(servers, set_config):
    token = new_token()

    assert submit_together(servers, token) == {201: LIMIT, 429: THREADS - LIMIT}

    status, headers = submit(servers[0], token)
    assert (status, headers["RateLimit-Remaining"]) == (429, "0")
    assert 0 < int(headers["Retry-After"]) <= 86400
    time.sleep(1.1)
    assert int(submit(servers[1], token)[1]["Retry-After"]) < int(headers["Retry-After"])

    assert submit(servers[0], new_token())[0] == 201  # somebody else
    set_limit(set_config, 0)
    assert submit_together(servers, token) == {201: THREADS}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_without_redis_nothing_fails_and_limits_hold_in_each_process(servers, redis, how):
    token, later_token = new_token(), new_token()

    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(submit_together, servers, token)
        time.sleep(0.05)
        os.kill(redis.pid, how)
        answers = in_flight.result()
    for _ in range(2):
        answers += submit_together(servers, token)
    later = sum((submit_together(servers, later_token) for _ in range(3)), Counter())
    health = [json.load(urllib.request.urlopen(f"{server}/api/health", timeout=30)) for server in servers]

    assert answers.keys() == {201, 429}
    assert (
        LIMIT <= answers[201] <= LIMIT * (1 + len(servers))
    )  # the shared budget, and then one in each process
    assert later == {201: LIMIT * len(servers), 429: 3 * THREADS - LIMIT * len(servers)}
    assert all("cache" in body["degraded"] for body in health)
