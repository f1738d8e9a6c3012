"""The database of the system before, opened so that nothing can be written to it."""

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from albums.legacy import values
from imagehub.errors import ImageHubError

NAMESPACE = uuid.UUID("c1ab6b5e-6d0c-4f3f-9c56-0a4e3f6f9a11")

KNOWN = ("albums", "images")
FETCH = 200

Row = dict[str, Any]


class NotLegacy(ImageHubError):
    """A file that is no database of the system before."""

    code = "not_legacy"
    title = "The file is no database of the system before"


class LegacyDatabase:
    """A database from any time of the system before: tables and columns may be missing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open a database to be read, and to nothing else.

        Raises:
            NotLegacy: it is none, or is damaged, now or while it is read.
        """
        if not path.is_file():
            raise NotLegacy(f"There is no file {path}.")
        try:
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            try:
                connection.text_factory = values.text
                connection.execute("PRAGMA query_only = ON")
                source = cls(connection)
                if not set(KNOWN) <= source.tables():
                    raise NotLegacy(f"{path} has no tables {' and '.join(KNOWN)}.")
                yield source
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            raise NotLegacy(f"{path} cannot be read as a SQLite database: {error}.") from error

    def tables(self) -> set[str]:
        """Return the names of the tables."""
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found if not name.startswith("sqlite_")}

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return self._connection.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()[0]  # noqa: S608

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of a table by their ids. A column that is missing is None.

        Holds no lock between two pages, however long the caller takes for a row.
        """
        if table not in self.tables():
            return
        names = ", ".join(self.columns(table, columns))
        condition = "1"
        last: tuple[Any, ...] = ()
        while page := list(
            self.select(f"SELECT {names} FROM {table} WHERE {condition} ORDER BY id LIMIT {FETCH}", last)  # noqa: S608
        ):
            yield from page
            condition, last = "id > ?", (page[-1]["id"],)

    def columns(self, table: str, columns: Sequence[str], prefix: str = "") -> list[str]:
        """Return what to select: the columns that are there, and NULL for those that are not."""
        there = {name for _, name, *_ in self._connection.execute(f"PRAGMA table_info({_quoted(table)})")}
        return [
            f"{table}.{name} AS {prefix}{name}" if name in there else f"NULL AS {prefix}{name}"
            for name in columns
        ]

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of a query, a few at a time in memory."""
        cursor = self._connection.execute(sql, parameters)
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(FETCH):
            for row in rows:
                yield dict(zip(names, row, strict=True))


def key_of(table: str, row: Row, *, name: str = "") -> uuid.UUID:
    """Return the id that a row has here: always the same for the same row, whichever copy of its database it is in.

    It follows from what a row never changes: its id and the time it was made. That time is as good as the name of the
    database, which has none: another one with the same ids has other times. Where there is none, ``name`` stands in.
    """
    made = values.moment(row.get("created_at"))
    return uuid.uuid5(NAMESPACE, f"{table}:{row['id']}:{made.isoformat() if made else name}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
