"""``python -m bench.purge_rows fill KIND ROWS`` makes old rows, ``purge KIND`` purges them, ``unlink`` deletes stored files alone.

Each prints one line of JSON.

Runs inside of an instance (``bench.purges`` starts it): two processes, so that what filled takes no part in the memory of what
purges.
"""

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from albums.models import (  # noqa: E402
    Album,
    AlbumImage,
    Image,
    ImageLook,
)
from albums.services import index_words  # noqa: E402
from albums.thumbnails import thumbnail_name  # noqa: E402
from bench.machine import memory_mib, peak_rss_mib  # noqa: E402
from generation.models import GenerationJob  # noqa: E402
from imagehub import storage  # noqa: E402
from imagehub.config import get_config  # noqa: E402
from imagehub.database import insert_like  # noqa: E402
from imagehub.identifiers import new_id  # noqa: E402
from imagehub.operations import purges  # noqa: E402
from imagehub.storage.disk import AT_ONCE  # noqa: E402
from imagehub.storage.names import named_by_content  # noqa: E402
from scraping.models import ScrapedImage, ScrapeJob  # noqa: E402
from training.models import BaseModel  # noqa: E402

BATCH = 2000
PER_CRAWL = 10_000
THINGS = {"generation": "jobs", "trash": "images", "scraping": "items"}
"""What each kind of purge counts."""

LONG_AGO = timezone.now() - timedelta(days=60)
PROMPT = "a red heart on a white background"


def main() -> None:
    if sys.argv[1] == "fill":
        owner = User.objects.create(username="owner")
        FILL[sys.argv[2]](owner, int(sys.argv[3]))
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
        print("{}")
    elif sys.argv[1] == "unlink":
        print(json.dumps(_unlink()))
    else:
        print(json.dumps(_purge(sys.argv[2])))


def _unlink() -> dict[str, Any]:
    """Delete all stored files, as many at once as the store does, and nothing else: what the file system alone takes."""
    names = [found.name for area in (storage.IMAGES, storage.THUMBNAILS) for found in storage.walk(area)]
    paths = [str(storage.path_of(name)) for name in names]
    random.Random(1).shuffle(paths)  # as a purge meets them: in no order
    started_at = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_unlink_all, [paths[start::AT_ONCE] for start in range(AT_ONCE)]))
    return {"files": len(paths), "seconds": round(time.perf_counter() - started_at, 2)}


def _unlink_all(paths: list[str]) -> None:
    for path in paths:
        os.unlink(path)  # noqa: PTH108 - a path object for each takes its time


def _purge(kind: str) -> dict[str, Any]:
    before = memory_mib(os.getpid())[1]
    started_at, used = time.perf_counter(), time.process_time()
    done = purges.purge_now(kind, older_than_days=30)
    seconds = time.perf_counter() - started_at
    return {
        "things": done.result[THINGS[kind]],
        "failed": done.result["failed"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "before_mib": before,
        "peak_mib": peak_rss_mib(os.getpid()),
    }


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        with transaction.atomic():
            yield range(start, min(start + BATCH, count))


def _fill_generation(owner: User, count: int) -> None:
    """Jobs that failed, each at a moment of its own, every tenth with a traceback."""
    model = BaseModel.objects.get(name="starter")
    for numbers in _batches(count):
        each = {
            "id": [new_id() for _ in numbers],
            "seed": list(numbers),
            "finished_at": [LONG_AGO + timedelta(milliseconds=number) for number in numbers],
            "error_trace": ["trace " * 300 if number % 10 == 0 else "" for number in numbers],
        }
        pattern = GenerationJob(
            owner=owner, base_model=model, status="failed", prompt=PROMPT, steps=25, width=64, height=64,
            guidance_scale=4.0, created_at=LONG_AGO,
        )  # fmt: skip
        insert_like(pattern, each)


def _fill_trash(owner: User, count: int) -> None:
    """Images of their own content, in an album, with words, looks, a file and its thumbnails."""
    album = Album.objects.create(owner=owner, name="old")
    sizes = get_config().storage.thumbnail_sizes
    for numbers in _batches(count):
        rows = []
        for number in numbers:
            data = number.to_bytes(8) * 64
            digest = hashlib.sha256(data)
            sha256, name = digest.hexdigest(), named_by_content(digest, len(data), "png").name
            for file in (name, *(thumbnail_name(sha256, size) for size in sizes)):
                path = storage.path_of(file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            rows.append(
                Image(
                    owner=owner,
                    name=f"{number}.png",
                    storage_name=name,
                    sha256=sha256,
                    size_bytes=len(data),
                    width=64,
                    height=64,
                    format="png",
                    prompt=PROMPT,
                    source_kind="upload",
                    placeholder="x",
                    deleted_at=LONG_AGO + timedelta(milliseconds=number),
                )
            )
        Image.objects.bulk_create(rows)
        AlbumImage.objects.bulk_create(
            AlbumImage(album=album, image=row, position=number)
            for number, row in zip(numbers, rows, strict=True)
        )
        ImageLook.objects.bulk_create(
            ImageLook(
                image=row,
                edges_0=number,
                edges_1=number,
                edges_2=number,
                edges_3=number,
                tone=number,
                colors=b"x" * 48,
            )
            for number, row in zip(numbers, rows, strict=True)
        )
        index_words([row.pk for row in rows])


def _fill_scraping(owner: User, count: int) -> None:
    """Addresses that led to no image, ten thousand to a crawl."""
    for numbers in _batches(count):
        if numbers.start % PER_CRAWL == 0:
            job = ScrapeJob.objects.create(
                owner=owner, name="old", status="completed", created_at=LONG_AGO, config={},
                finished_at=LONG_AGO + timedelta(seconds=numbers.start),
            )  # fmt: skip
        ScrapedImage.objects.bulk_create(
            ScrapedImage(
                job=job,
                position=number,
                state="filtered",
                url=f"https://old.example/{number}.png",
                key=f"{number:032x}",
                domain="old.example",
                fetched_at=LONG_AGO,
            )
            for number in numbers
        )


FILL = {"generation": _fill_generation, "trash": _fill_trash, "scraping": _fill_scraping}

if __name__ == "__main__":
    main()
