"""Uploads through the web server as it ships: what is refused unread, what is cut off, and that memory stays flat."""

import json
import re
import socket
import time
from pathlib import Path

import pytest

from albums.models import Image
from albums.tests.factories import picture
from imagehub import storage
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024
BOUNDARY = "a-boundary"


@pytest.fixture(autouse=True)
def _configuration(set_config):
    set_config("{storage: {minimum_free_bytes: 0}, rate_limits: {upload: {limit: 0, window_seconds: 60}}}")


@pytest.fixture
def headers():
    ApiTokenFactory(user=UserFactory(staff=True), secret="ih_a-token-for-uploads")
    return {"Authorization": "Bearer ih_a-token-for-uploads"}


def connect(base):
    host, port = base.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(headers, **more):
    lines = {"Host": "localhost", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} | headers
    lines |= {name.replace("_", "-"): value for name, value in more.items()}
    written = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /api/images/upload HTTP/1.1\r\n{written}\r\n".encode()


def first(name="a.png"):
    """Return what stands in front of the bytes of a file."""
    named = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    return f"--{BOUNDARY}\r\n{named}\r\nContent-Type: image/png\r\n\r\n".encode()


LAST = f"\r\n--{BOUNDARY}--\r\n".encode()


def answer_of(client):
    """Return the status and the document of an answer, read as far as it goes."""
    data = b""
    while (found := re.search(rb"\r\n\r\n", data)) is None:
        received = client.recv(65536)
        assert received, f"the connection ended with {data!r}"
        data += received
    length = (
        int(re.search(rb"content-length: (\d+)", data.lower())[1])
        if b"content-length" in data.lower()
        else None
    )
    body = data[found.end() :]
    while length is None or len(body) < length:
        received = client.recv(65536)
        if not received:
            break
        body += received
    return int(data.split(b" ", 2)[1]), json.loads(body) if length else body


def send(client, data):
    """Send as much as the server takes; it may answer and hang up at any time."""
    try:
        client.sendall(data)
    except OSError:
        return False
    return True


def resident_bytes(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def staged():
    folder = storage.path_of("staging")
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_uploads_over_the_wire(server, headers):
    base, process = server
    body = first() + picture() + LAST

    # Refusals that need no body come before one is sent (U30, U31, U42).
    for sent, length, status in (
        ({}, 1000, 401),
        ({"Authorization": "Bearer ih_nobody"}, 1000, 401),
        (headers | {"Content-Type": "application/json"}, 1000, 415),
        (headers, 201 * MIB, 413),
        (headers, 10 * 1024 * MIB, 413),
    ):
        with connect(base) as client:
            client.sendall(head(sent, Content_Length=length))
            assert answer_of(client)[0] == status, (sent, length)

    # A whole form, with its length declared and in chunks.
    with connect(base) as client:
        client.sendall(head(headers, Content_Length=len(body)) + body)
        assert answer_of(client)[0] == 201
        chunked = (
            b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:50], body[50:])) + b"0\r\n\r\n"
        )
        client.sendall(head(headers, Transfer_Encoding="chunked") + chunked)
        status, document = answer_of(client)
        assert status == 201, document
    assert Image.objects.count() == 2

    # What goes on behind the declared length is no part of the form (U31).
    with connect(base) as client:
        client.sendall(head(headers, Content_Length=10) + body[:10])
        assert answer_of(client)[0] == 400
        client.sendall(body[10:])
        assert b"400 Bad Request" in client.recv(65536)

    # A client that stops sending is told so, one that leaves is forgotten; nothing stays of either (U33).
    with connect(base) as stopped, connect(base) as gone:
        for client in (stopped, gone):
            client.sendall(head(headers, Content_Length=len(body)) + body[:-60])
        assert wait_for(lambda: len(staged()) == 2)
        gone.close()
        assert wait_for(lambda: len(staged()) == 1)
        status, document = answer_of(stopped)
        assert (status, document["code"]) == (408, "timeout")
    assert wait_for(lambda: staged() == [])

    # Whatever comes, memory stays flat (U31).
    before = resident_bytes(process)
    block = bytes(MIB)
    with connect(base) as client:
        client.sendall(head(headers, Content_Length=len(first()) + 150 * MIB + len(LAST)) + first())
        for _ in range(150):
            assert send(client, block)
        client.sendall(LAST)
        status, document = answer_of(client)
        assert (status, document["code"]) == (413, "too_large")
    with connect(base) as client:
        client.sendall(head(headers, Transfer_Encoding="chunked"))
        sent = 0
        while sent < 1024 and send(client, b"%x\r\n%s\r\n" % (MIB, block)):
            sent += 1
        assert sent < 300
    assert resident_bytes(process) - before < 40 * MIB
    assert Image.objects.count() == 2
    assert wait_for(lambda: staged() == [])


def test_a_limit_of_requests_holds_before_the_body_comes(server, headers, set_config):
    base, _ = server
    set_config("{storage: {minimum_free_bytes: 0}, rate_limits: {upload: {limit: 1, window_seconds: 600}}}")
    body = first() + picture() + LAST
    with connect(base) as client:
        client.sendall(head(headers, Content_Length=len(body)) + body)
        assert answer_of(client)[0] == 201

    with connect(base) as client:
        client.sendall(head(headers, Content_Length=100 * MIB))
        status, document = answer_of(client)

    assert (status, document["code"]) == (429, "rate_limited")
