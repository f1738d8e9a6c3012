"""The database as one file, and back: PostgreSQL by its own programs, SQLite by its backup API."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from django.db import DatabaseError, connection, transaction
from django.db.backends.postgresql.client import DatabaseClient

from imagehub.errors import NotReady

FILE_NAMES = {"postgresql": "database.dump", "sqlite": "database.sqlite3"}
"""What the copy of a database is called, by the kind of database that it is of."""


class CopyFailed(NotReady):
    """The database cannot be copied, or not be put back."""

    code = "copy_failed"
    title = "The database could not be copied"


def save(folder: Path) -> Path:
    """Write the database as it is at one moment into a folder, while others go on using it. Returns the file.

    Raises:
        CopyFailed: PostgreSQL's programs are missing, or older than the server; or whatever else they say.
    """
    target = folder / FILE_NAMES[connection.vendor]
    if connection.vendor == "postgresql":
        argv, database = _arguments("pg_dump")
        argv += ["--format=custom", "--no-owner", "--no-privileges", "--no-comments", f"--file={target}"]
        _run([*argv, f"--dbname={database}"])
        return target
    with closing(_open_sqlite()) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    return target


def load(source: Path) -> None:
    """Put a copy in the place of the database. What was there before is gone, and either all of it is new or nothing.

    Raises:
        CopyFailed: it is a copy of the other kind of database, or cannot be put back.
    """
    if source.name != FILE_NAMES[connection.vendor]:
        raise CopyFailed(
            f"The backup is of another kind of database than this one, which is {connection.display_name}."
        )
    if connection.vendor == "postgresql":
        with transaction.atomic():
            _drop_tables()
        connection.close()
        argv, database = _arguments("pg_restore")
        argv += [
            "--single-transaction",
            "--exit-on-error",
            "--no-owner",
            "--no-privileges",
            f"--dbname={database}",
        ]
        _run([*argv, str(source)])
        return
    connection.close()
    try:
        with closing(sqlite3.connect(source)) as copy, closing(_open_sqlite()) as target:
            copy.backup(target)
    except sqlite3.Error as error:
        raise CopyFailed(f"SQLite says: {error}.") from error


def is_empty() -> bool:
    """Tell whether the database has no tables.

    Raises:
        CopyFailed: it does not answer.
    """
    try:
        return not connection.introspection.table_names()
    except DatabaseError as error:
        raise CopyFailed("The database does not answer.") from error


def _drop_tables() -> None:
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)} CASCADE")


def _open_sqlite() -> sqlite3.Connection:
    return sqlite3.connect(connection.settings_dict["NAME"], timeout=20)


def _arguments(program: str) -> tuple[list[str], str]:
    """Return how a program of PostgreSQL is told of our server, and the name of the database."""
    settings = connection.settings_dict | {"OPTIONS": {}}
    psql, _ = DatabaseClient.settings_to_cmd_args_env(settings, [])
    return [program, *psql[1:-1]], str(connection.settings_dict["NAME"])


def _run(argv: list[str]) -> None:
    _, secret = DatabaseClient.settings_to_cmd_args_env(connection.settings_dict, [])
    try:
        done = subprocess.run(
            argv, env=os.environ | (secret or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise CopyFailed(f"{argv[0]} is not installed: it comes with PostgreSQL's client programs.") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise CopyFailed(f"{argv[0]} says: {said}")
