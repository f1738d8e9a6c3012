"""Databases of the system before, built from its schema at two times, with a folder of files."""

import json
import sqlite3
from pathlib import Path

from albums.tests.factories import picture
from imagehub.tests.canaries import CANARY

OLD_ROOT = "/mnt/speedy/imagineer/outputs"
"""Where the files lay on the machine of the system before."""

ALBUMS = """
    CREATE TABLE albums (
        id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, description TEXT, album_type VARCHAR(50),
        is_public BOOLEAN, created_by VARCHAR(255), generation_prompt TEXT, generation_config TEXT,
        is_set_template BOOLEAN, csv_data TEXT, base_prompt TEXT, prompt_template TEXT, style_suffix TEXT,
        example_theme TEXT, lora_config TEXT, {more} created_at DATETIME, updated_at DATETIME
    )
"""
IMAGES = """
    CREATE TABLE images (
        id INTEGER NOT NULL PRIMARY KEY, filename VARCHAR(255) NOT NULL UNIQUE, file_path VARCHAR(500) NOT NULL,
        thumbnail_path VARCHAR(500), prompt TEXT, negative_prompt TEXT, seed INTEGER, steps INTEGER,
        guidance_scale FLOAT, width INTEGER, height INTEGER, lora_config TEXT, is_nsfw BOOLEAN, is_public BOOLEAN,
        created_at DATETIME, updated_at DATETIME
    )
"""
LABELS = """
    CREATE TABLE labels (
        id INTEGER NOT NULL PRIMARY KEY, image_id INTEGER REFERENCES images (id), label_text TEXT NOT NULL,
        confidence FLOAT, label_type VARCHAR(50), source_model VARCHAR(100), source_prompt TEXT,
        created_by VARCHAR(255), created_at DATETIME
    )
"""
ALBUM_IMAGES = """
    CREATE TABLE album_images (
        id INTEGER NOT NULL PRIMARY KEY, album_id INTEGER REFERENCES albums (id),
        image_id INTEGER REFERENCES images (id), sort_order INTEGER, added_by VARCHAR(255), created_at DATETIME,
        UNIQUE (album_id, image_id)
    )
"""
BATCH_TEMPLATES = """
    CREATE TABLE batch_templates (
        id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, description TEXT, csv_path VARCHAR(500),
        csv_data TEXT, base_prompt TEXT, prompt_template TEXT, style_suffix TEXT, example_theme TEXT, width INTEGER,
        height INTEGER, negative_prompt TEXT, lora_config TEXT, created_by VARCHAR(255), created_at DATETIME,
        updated_at DATETIME
    )
"""
BUG_REPORTS = "CREATE TABLE bug_reports (id INTEGER NOT NULL PRIMARY KEY, description TEXT)"
"""What nothing here imports."""
SEED = [ALBUMS.format(more="is_training_source BOOLEAN,"), IMAGES, LABELS, ALBUM_IMAGES, BUG_REPORTS]
HEAD = [
    ALBUMS.format(more="source_type VARCHAR(50), source_id INTEGER,"),
    IMAGES,
    LABELS,
    ALBUM_IMAGES,
    BUG_REPORTS,
    BATCH_TEMPLATES,
]

DECK = [{"value": "ace", "suit": "hearts"}, {"value": "two", "suit": "hearts"}]


class OldSystem:
    """A database and its files."""

    def __init__(self, folder: Path, schema: list[str]) -> None:
        self.media = folder / "outputs"
        self.media.mkdir(parents=True)
        self.path = folder / "imagineer.db"
        self._minutes = 0
        with self.connection() as connection:
            for table in schema:
                connection.execute(table)

    def connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)

    def add(self, table: str, **values) -> int:
        """Insert a row; return its id. Times are naive, as they were."""
        self._minutes += 1
        values = {
            "created_at": f"2025-10-30 17:{self._minutes // 60:02}:{self._minutes % 60:02}.123456"
        } | values
        if table == "bug_reports":
            del values["created_at"]
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self.connection() as connection:
            cursor = connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values())
            )
            return cursor.lastrowid

    def write(self, name: str, content: bytes | None = None, **options) -> None:
        """Leave a file where a row names it."""
        path = self.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(**options) if content is None else content)

    def add_image(
        self, filename: str, *, folder: str = "uploads/20251030_170000", file=True, **values
    ) -> int:
        if file:
            self.write(f"{folder}/{filename}")
        values = {
            "filename": filename,
            "file_path": f"{OLD_ROOT}/{folder}/{filename}",
            "prompt": f"a red heart, {CANARY}",
            "is_public": 1,
            "is_nsfw": 0,
        } | values
        return self.add("images", **values)

    def add_label(self, image: int | None, text: str, label_type: str = "tag", **values) -> int:
        return self.add(
            "labels", image_id=image, label_text=f"{text} {CANARY}", label_type=label_type, **values
        )

    def add_album(self, name: str, images=(), **values) -> int:
        values = {"name": name, "album_type": "manual", "is_public": 1, "is_set_template": 0} | values
        album = self.add("albums", **values)
        for image in images:
            self.add("album_images", album_id=album, image_id=image, sort_order=0)
        return album

    def add_template(self, name: str, **values) -> int:
        """Add an album of the seed's time that is a set template."""
        values = {
            "album_type": "set",
            "is_set_template": 1,
            "csv_data": json.dumps(DECK),
            "base_prompt": f"a playing card, {CANARY}",
            "prompt_template": "{value} of {suit}",
            "style_suffix": "high quality",
            "example_theme": "art deco",
            "lora_config": json.dumps(
                [{"path": "/mnt/speedy/models/lora/cards/card_style.safetensors", "weight": 0.6}]
            ),
            "generation_config": json.dumps(
                {"slug": "cards", "width": 512, "height": 720, "negative_prompt": "blurry"}
            ),
        } | values
        return self.add_album(name, **values)
