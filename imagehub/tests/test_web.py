"""The web server as a process: what it imports, and what it answers on its one port."""

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import pytest
from django.conf import settings

from imagehub import asgi

pytestmark = pytest.mark.once

WEB_IMPORTS = """
import sys
import imagehub.asgi
from django.urls import get_resolver
get_resolver().url_patterns
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "diffusers", "transformers", "numpy"}))
"""


def test_the_web_process_never_imports_the_deep_learning_stack(process_env):
    output = subprocess.run(
        [sys.executable, "-c", WEB_IMPORTS],
        env=process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )

    assert output.stdout.strip() == "[]"


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def test_the_shipped_server_answers_in_json_under_api(server):
    base, process = server

    assert get(f"{base}/api/health/live")[0] == 200
    status, kind, body = get(f"{base}/api/nothing")
    assert (status, kind, json.loads(body)["status"]) == (404, "application/problem+json", 404)
    status, kind, body = get(
        f"{base}/api/jobs/x/events"
    )  # which goes another way, and answers in the same shape
    assert (status, kind) == (401, "application/problem+json")
    assert get(f"{base}/")[0] == 200
    assert get(f"{base}/admin/login/")[0] == 200
    status, kind, _ = get(f"{base}/static/admin/css/base.css")
    assert (status, kind.partition(";")[0]) == (200, "text/css")
    assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()


def connect(base: str) -> socket.socket:
    host, port = base.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_slow_clients_hold_no_thread(server):
    base, _ = server
    slow = [connect(base) for _ in range(20)]
    for client in slow:
        client.sendall(b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nab")
    time.sleep(0.5)

    assert get(f"{base}/api/health/live")[0] == 200

    answer = slow[0].recv(4096)  # the server is started with a short patience
    assert b" 408 " in answer.splitlines()[0]
    assert b"application/problem+json" in answer
    for client in slow:
        client.close()


def test_a_declared_length_beyond_every_limit_is_refused_unread(server):
    base, _ = server
    with connect(base) as client:
        client.sendall(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")
        assert b" 413 " in client.recv(4096).splitlines()[0]


def test_a_large_body_reaches_the_view_whole(server):
    base, _ = server
    body = json.dumps({"prompt": "x" * 1_500_000}).encode()
    request = urllib.request.Request(
        f"{base}/api/generate", data=body, headers={"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=20)
    assert refusal.value.code == 401


STREAM = "/api/jobs/01a21386-adbe-72a8-9f07-d0491dcffc9c/events"


def test_a_body_for_a_stream_is_held_to_the_same_limits(server):
    base, _ = server
    with connect(base) as client:
        client.sendall(
            f"POST {STREAM} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n".encode()
        )
        assert b" 413 " in client.recv(4096).splitlines()[0]


def test_a_header_with_an_underscore_is_not_taken_for_that_of_a_proxy():
    seen = {}

    async def requests(scope, receive, send):
        seen.update(scope["headers"])

    with mock.patch.object(asgi, "_requests", requests):
        headers = [(b"x-forwarded-for", b"198.51.100.1"), (b"x_forwarded_for", b"6.6.6.6")]
        asyncio.run(asgi.application({"type": "http", "path": "/", "headers": headers}, None, None))

    assert seen == {b"x-forwarded-for": b"198.51.100.1"}
