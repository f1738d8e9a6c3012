"""A program that fills an empty library with synthetic rows, as fast as the database takes them.

``python -m bench.library_rows 1000000`` works on the instance that the environment names. Half of the rows share one
time of creation, as they do after a bulk import. No files are written: lists do not look at them.
"""

import argparse
import hashlib
import json
import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import django

COMMON, SECOND, RARE, PREFIX = "portrait", "golden", "zyzzyva", "watercol*"
"""A word of half of all images, one of a fifth, one of a single image, and the beginning of one of a tenth."""

ALBUMS, ALBUM_IMAGES = 200, 500
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SYLLABLES = [
    "ba",
    "cor",
    "del",
    "fi",
    "gra",
    "hol",
    "in",
    "jor",
    "ka",
    "lum",
    "mo",
    "nes",
    "or",
    "pri",
    "qua",
    "ros",
]
BATCH = 10_000


def vocabulary() -> tuple[list[str], list[float]]:
    """Return 4,000 words, and how often each is used: a few very often, most of them seldom, as in any language."""
    words = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES if a != c or b != c][:4000]
    random.Random(5).shuffle(words)
    total, cumulative = 0.0, []
    for rank in range(1, len(words) + 1):
        total += 1 / rank
        cumulative.append(total)
    return words, cumulative


def prompts(count: int) -> Iterator[str]:
    """Yield prompts of about twenty words."""
    words, weights = vocabulary()
    chance = random.Random(7)
    for number in range(count):
        said = chance.choices(words, cum_weights=weights, k=chance.randint(12, 24))
        if chance.random() < 0.5:
            said.insert(0, COMMON)
        if chance.random() < 0.2:
            said.append(SECOND)
        if chance.random() < 0.1:
            said.append("watercolour")
        if number == count // 3:
            said.append(RARE)
        yield ", ".join(said)


def image_id(number: int) -> uuid.UUID:
    """Return an id that grows with the number, as those of version 7 do."""
    random_part = int.from_bytes(hashlib.blake2b(str(number).encode(), digest_size=8).digest(), "big") >> 2
    return uuid.UUID(int=(0x019B00000000 + number) << 80 | 7 << 76 | 2 << 62 | random_part)


def created_at(number: int, count: int) -> datetime:
    return EPOCH + timedelta(seconds=number if number < count // 2 else count // 2)


def image_rows(count: int, owner: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(11)
    for number, prompt in enumerate(prompts(count)):
        sha256 = hashlib.sha256(str(number).encode()).hexdigest()
        yield {
            "id": image_id(number),
            "owner_id": owner,
            "name": f"{prompt.partition(',')[0]} {chance.randrange(100_000)}.png",
            "original_name": f"IMG_{number}.png",
            "visibility": "public" if chance.random() < 0.9 else "private",
            "nsfw": chance.choices(["unknown", "safe", "flagged"], [45, 50, 5])[0],
            "starred": chance.random() < 0.02,
            "rating": chance.choices(range(6), [70, 2, 4, 8, 10, 6])[0],
            "created_at": created_at(number, count),
            "deleted_at": None,
            "storage_name": f"images/{sha256[:2]}/{sha256}.png",
            "sha256": sha256,
            "size_bytes": chance.randrange(200_000, 3_000_000),
            "width": 1024,
            "height": chance.choice([768, 1024, 1344]),
            "format": "png",
            "placeholder": "LEHV6nWB2yk8pyo0adR*.7kCMdnj",
            "prompt": prompt,
            "negative_prompt": "blurry, low quality, watermark",
            "seed": chance.randrange(2**31),
            "steps": 25,
            "guidance_scale": 7.5,
            "scheduler": "euler",
            "base_model": f"model-{chance.randrange(12)}",
            "loras": json.dumps([{"id": "7", "name": "ink", "weight": 0.8}] if number % 5 == 0 else []),
            "source_kind": "generation",
            "source_id": image_id(number),
            "source_index": 0,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    count = parser.parse_args().count
    django.setup()
    from django.contrib.auth.models import User
    from django.db import connection, transaction

    from albums.models import Album, AlbumImage, Image, ImageLora, ImageText, Label
    from albums.planner import write_figures
    from albums.services import refresh_summaries
    from albums.words import document_of

    owner, _ = User.objects.get_or_create(username="olivia")
    albums = [
        Album(name=f"album {n}", visibility="public", created_at=EPOCH) for n in range(min(ALBUMS, count))
    ]
    indexes = Image._meta.indexes
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(Image, index)
    with transaction.atomic():
        for rows in batches(image_rows(count, owner.pk)):
            insert(Image, rows)
            insert(
                ImageText,
                [
                    {"image_id": row["id"], "document": document_of(row["name"], row["prompt"])}
                    for row in rows
                ],
            )
            insert(
                ImageLora, [{"image_id": row["id"], "lora_id": "7"} for row in rows if row["loras"] != "[]"]
            )
            insert(
                Label,
                [
                    {
                        "id": uuid.uuid4(),
                        "image_id": row["id"],
                        "kind": "tag",
                        "text": tag,
                        "identity": tag,
                        "origin": "human",
                        "model": "",
                        "created_at": EPOCH,
                        "updated_at": EPOCH,
                    }
                    for row in rows[::10]
                    for tag in ("kept", f"tag {row['seed'] % 1000}")
                ],
            )
        Album.objects.bulk_create(albums)
        for rows in batches(places(count, albums)):
            insert(AlbumImage, rows)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(Image, index)
    write_figures(connection.alias)  # SQLite forgets them with an index
    if connection.vendor == "postgresql":  # as autovacuum does before long
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    refresh_summaries(album.pk for album in albums)
    print(json.dumps({"album": str(albums[0].pk)}))


def places(count: int, albums: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield 500 places in the first album, and spread a quarter of the images over the others."""
    first = min(ALBUM_IMAGES, count)
    for number in range(first):
        yield _place(albums[0], number * (count // first), number)
    for number in range(count // 4):
        yield _place(albums[1 + number % (len(albums) - 1)], number, number)


def _place(album: Any, number: int, position: int) -> dict[str, Any]:
    return {"album_id": album.pk, "image_id": image_id(number), "position": position, "added_at": EPOCH}


def insert(model: Any, rows: list[dict[str, Any]]) -> None:
    """Insert rows by the shortest way: ``COPY`` on PostgreSQL, one prepared statement on SQLite."""
    from django.db import connection

    if not rows:
        return
    quote = connection.ops.quote_name
    columns = ", ".join(map(quote, rows[0]))
    table = quote(model._meta.db_table)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(list(row.values()))
            return
        marks = ", ".join(["?"] * len(rows[0]))
        connection.connection.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})",
            [[_for_sqlite(value) for value in row.values()] for row in rows],
        )


def _for_sqlite(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.hex
    return value.replace(tzinfo=None).isoformat(" ") if isinstance(value, datetime) else value


def batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    main()
