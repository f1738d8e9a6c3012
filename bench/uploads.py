"""What a picture costs on its way in, against bare Pillow doing the same decode, hash and encode."""

import hashlib
import http.client
import json
import multiprocessing
import multiprocessing.pool
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import PIL.Image

from bench import machine
from bench.instance import Service, free_port, temporary_instance
from bench.report import Figure, at_least, info, spread
from bench.setting import Setting, say
from bench.web_server import uvicorn

NAME = "uploads"
GOAL_RATE, GOAL_SHARE = 24.0, 0.75
SIDE = 1024
THUMBNAIL_SIDE = 300
PROCESSES = 2
CONNECTIONS = 3

FORMS = {"one to a form": 1, "six to a form, as the admin page sends them": 6}


@dataclass
class Round:
    """How fast pictures were taken in, and the processor time each took in all processes together."""

    rate: float
    cpu_ms: float


def run(setting: Setting) -> list[Figure]:
    """Upload pictures and let bare Pillow do the same work, in turns."""
    rounds, count = setting.pick(5, 1), setting.pick(36, 12)
    ours: dict[str, list[Round]] = {form: [] for form in FORMS}
    bare: list[Round] = []
    with temporary_instance() as instance, multiprocessing.Pool(PROCESSES) as pool:
        port = free_port()
        with instance.serving(uvicorn("imagehub.asgi:application")(port), port) as service:
            _upload(service, _draw(pool, setting.scratch, 4), 1)  # the decoders start, modules are imported
            for number in range(rounds):
                bare.append(_of_new_files(pool, setting, count, lambda files: pool.map(work_bare, files, 1)))
                for form, size in FORMS.items():
                    upload = partial(_upload, service, form_size=size)
                    ours[form].append(_of_new_files(pool, setting, count, upload))
                    say(f"round {number + 1}, {form}: {ours[form][-1].rate:.1f} images/s")
    return [figure for form in FORMS for figure in _figures(form, ours[form], bare)]


def _figures(form: str, ours: list[Round], bare: list[Round]) -> list[Figure]:
    what = f"{SIDE} px PNGs to row and list thumbnail, {form}"
    share = statistics.median(mine.rate / theirs.rate for mine, theirs in zip(ours, bare, strict=True))
    rates = [spread([one.rate for one in rounds]) for rounds in (ours, bare)]
    times = [spread([one.cpu_ms for one in rounds]) for rounds in (ours, bare)]
    return [
        at_least(NAME, what, statistics.median(one.rate for one in ours), GOAL_RATE, unit="/s"),
        at_least(NAME, f"  share of bare Pillow doing the same in {PROCESSES} processes", share, GOAL_SHARE),
        info(NAME, "  ours; bare Pillow (images/s)", "; ".join(rates)),
        info(NAME, "  processor time of one: ours, clients and all; bare Pillow (ms)", "; ".join(times)),
    ]


def work_bare(file: Path) -> str:
    """Decode, hash, shrink and encode one picture, and write what comes of it."""
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    with PIL.Image.open(file, formats=["PNG"]) as picture:
        picture.load()
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), PIL.Image.Resampling.LANCZOS)
        picture.save(file.with_suffix(".webp"), "WEBP", quality=80, method=4)
    kept = file.with_suffix(".kept")
    kept.write_bytes(data)
    kept.unlink()
    return digest


def draw(file: Path) -> Path:
    """Write a grainy picture of about 1.5 MiB that nobody has seen before."""
    noise = PIL.Image.effect_noise((SIDE, SIDE), 12)
    slope = PIL.Image.linear_gradient("L").resize((SIDE, SIDE))
    bands = [PIL.Image.blend(slope.rotate(90 * turn), noise, 0.3) for turn in range(3)]
    PIL.Image.merge("RGB", bands).save(file, "PNG", compress_level=3)
    return file


def _draw(pool: multiprocessing.pool.Pool, folder: Path, count: int) -> list[Path]:
    return pool.map(draw, [folder / f"{uuid4().hex}.png" for _ in range(count)], chunksize=1)


def _of_new_files(
    pool: multiprocessing.pool.Pool, setting: Setting, count: int, work: Callable[[Sequence[Path]], object]
) -> Round:
    """Let some work take in new pictures."""
    files = _draw(pool, setting.scratch, count)
    started_at, cpu_before = time.perf_counter(), machine.cpu_seconds(os.getpid())
    work(files)
    seconds, cpu_seconds = time.perf_counter() - started_at, machine.cpu_seconds(os.getpid()) - cpu_before
    for file in files:
        file.unlink()
    return Round(count / seconds, 1000 * cpu_seconds / count)


def _upload(service: Service, files: Sequence[Path], form_size: int) -> None:
    shares = [files[number::CONNECTIONS] for number in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as clients:
        list(clients.map(lambda share: _send(service, share, form_size), shares))


def _send(service: Service, files: Sequence[Path], form_size: int) -> None:
    """Upload files over one connection, so many to a form.

    Raises:
        RuntimeError: one was refused.
    """
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    for start in range(0, len(files), form_size):
        boundary = uuid4().hex
        parts = [_part(file, boundary) for file in files[start : start + form_size]]
        body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        headers = {
            "Authorization": f"Bearer {service.token}",
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        }
        connection.request("POST", "/api/images/upload", body=body, headers=headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 201 or not all("image" in file for file in json.loads(answer)["results"]):
            raise RuntimeError(f"An upload answered {response.status}: {answer[:500]!r}")
    connection.close()


def _part(file: Path, boundary: str) -> bytes:
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    return head + file.read_bytes() + b"\r\n"
