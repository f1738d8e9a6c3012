"""How the web process grows while it streams a large archive."""

import socket
import threading

from bench import machine
from bench.instance import Instance, Service, free_port, temporary_instance
from bench.report import Figure, at_most, info
from bench.setting import Setting, say
from bench.web_server import uvicorn

NAME = "archive"
GOAL_MIB = 64.0
FILE_MIB = 20
SAMPLE_SECONDS = 0.1
RECEIVE_BYTES = 1 << 20

ADD_ALBUM = """
import os
from albums.models import Album, AlbumImage, Image
from albums.services import refresh_summaries
from imagehub import storage
stored = storage.store_bytes(os.urandom({size}), suffix="png")
images = Image.objects.bulk_create(
    Image(
        name=f"picture {{n}}", visibility="public", storage_name=stored.name, size_bytes=stored.size_bytes,
        sha256=stored.sha256, width=64, height=64, format="png", source_kind="upload",
    )
    for n in range({count})
)
album = Album.objects.create(name="large", visibility="public")
AlbumImage.objects.bulk_create(
    AlbumImage(album=album, image=image, position=n) for n, image in enumerate(images)
)
refresh_summaries([album.pk])
print(album.pk)
"""


def run(setting: Setting) -> list[Figure]:
    """Download an album of 5 GB (one file, many times over) and watch the web process meanwhile."""
    count = setting.pick(256, 32)
    with temporary_instance() as instance:
        album = _add_album(instance, count)
        port = free_port()
        with instance.serving(uvicorn("imagehub.asgi:application")(port), port) as service:
            before, most, received = _download(service, f"/api/albums/{album}/archive")
    say(
        f"{received / machine.MIB:.0f} MiB received; the process: {before:.0f} MiB before, {most:.0f} at most"
    )
    if received < count * FILE_MIB * machine.MIB:
        raise RuntimeError(f"Only {received} bytes came.")
    return [
        at_most(
            NAME,
            f"growth of the web process over {received / 1e9:.1f} GB of ZIP",
            most - before,
            GOAL_MIB,
            unit=" MiB",
        ),
        info(NAME, "RSS before; at most", f"{before:.0f}; {most:.0f} MiB"),
    ]


def _add_album(instance: Instance, count: int) -> str:
    script = ADD_ALBUM.format(size=FILE_MIB * machine.MIB, count=count)
    return instance.manage("shell", "-v", "0", "-c", script).split()[-1]


def _download(service: Service, path: str) -> tuple[float, float, int]:
    """Return the resident size before, the largest size meanwhile (MiB), and the bytes that came."""
    with service.client() as client:
        client.fetch("GET", "/api/albums")  # whatever is imported by a first request is there now
    before = machine.memory_mib(service.pid)[1]
    is_over = threading.Event()
    sizes = [before]

    def watch() -> None:
        while not is_over.wait(SAMPLE_SECONDS):
            sizes.append(machine.memory_mib(service.pid)[1])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        received = _receive(service, path)
    finally:
        is_over.set()
        watcher.join()
    return before, max(sizes), received


def _receive(service: Service, path: str) -> int:
    """Ask for a path and count the bytes that come, without keeping any."""
    received = 0
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {service.token}\r\n\r\n".encode()
        )
        while chunk := connection.recv(RECEIVE_BYTES):
            received += len(chunk)
    return received
