"""The database as one file, and back: PostgreSQL by its own programs, SQLite by its backup API."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, cast

from django.db import DatabaseError, connection
from django.db.backends.postgresql.client import DatabaseClient

from imagehub.errors import Conflict, NotReady

FILE_NAMES = {"postgresql": "database.dump", "sqlite": "database.sqlite3"}
"""What the copy of a database is called, by the kind of database that it is of."""

LOCK_SECONDS = 10
STOP_FIRST = "Stop the web server and the clusters first."


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


def check(source: Path) -> None:
    """See whether a copy could be put in the place of the database, as far as that can be told without touching it.

    Raises:
        CopyFailed: it is a copy of the other kind of database, PostgreSQL's programs are missing or too old for it, or it cannot be read.
    """
    if source.name != FILE_NAMES[connection.vendor]:
        raise CopyFailed(
            f"The backup is of another kind of database than this one, which is {connection.display_name}."
        )
    if connection.vendor == "postgresql":
        _run(["psql", "--version"])
        _run(["pg_restore", "--list", str(source)])
        return
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as copy:
            copy.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        raise CopyFailed(f"SQLite says: {error}.") from error


def load(source: Path) -> None:
    """Put a copy in the place of the database. What was there before is gone, and either all of it is new or nothing.

    Raises:
        CopyFailed: what :func:`check` says; or it cannot be put back, and the database is as it was.
    """
    check(source)
    if connection.vendor == "postgresql":
        _load_postgresql(source)
        return
    connection.close()
    try:
        with closing(sqlite3.connect(source)) as copy, closing(_open_sqlite()) as target:
            copy.backup(target)
    except sqlite3.Error as error:
        raise CopyFailed(f"SQLite says: {error}.") from error


def _load_postgresql(source: Path) -> None:
    """Send psql one transaction: the old tables go, the new ones come. Only we commit, once pg_restore has ended well.

    psql's own ``--single-transaction`` would commit what there is when pg_restore breaks off.
    """
    drops = _drop_statements()
    connection.close()
    argv, database = _arguments("psql")
    argv += ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={database}"]
    with (
        tempfile.TemporaryFile("w+") as psql_said,
        tempfile.TemporaryFile("w+") as restore_said,
        subprocess.Popen(
            argv, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=psql_said
        ) as psql,
        subprocess.Popen(
            ["pg_restore", "--file=-", "--exit-on-error", "--no-owner", "--no-privileges", str(source)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=restore_said,
        ) as restore,
    ):
        to_psql, restored = cast(IO[bytes], psql.stdin), cast(IO[bytes], restore.stdout)
        try:
            with suppress(BrokenPipeError):  # psql has ended, and has said why
                to_psql.write(drops.encode())
                shutil.copyfileobj(restored, to_psql)
                if restore.wait() == 0:
                    to_psql.write(b"\nCOMMIT;\n")
                    to_psql.flush()
                else:
                    psql.kill()
        finally:
            restore.kill()
            with suppress(BrokenPipeError):
                to_psql.close()
        if restore.wait() > 0:
            raise CopyFailed(f"pg_restore says: {_first_line(restore_said)} The database is as it was.")
        if psql.wait():
            said = _first_line(psql_said)
            if "lock timeout" in said:
                raise CopyFailed(f"{STOP_FIRST} Somebody holds its tables. The database is as it was.")
            raise CopyFailed(f"psql says: {said} The database is as it was.")


def _drop_statements() -> str:
    with connection.cursor() as cursor:
        names = [connection.ops.quote_name(name) for name in connection.introspection.table_names(cursor)]
    drops = "".join(f"DROP TABLE {name} CASCADE;\n" for name in names)
    return f"BEGIN;\nSET LOCAL lock_timeout = '{LOCK_SECONDS}s';\nSET LOCAL client_min_messages = warning;\n{drops}"


def refuse_while_in_use() -> None:
    """Refuse where somebody else is connected to the database. A web server of SQLite that is idle may not be seen.

    Raises:
        Conflict: somebody is.
        CopyFailed: it does not answer.
    """
    if connection.vendor == "postgresql":
        try:
            with connection.cursor() as cursor:
                # Processes of the server itself have no user.
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename IS NOT NULL"
                )
                others = cursor.fetchone()[0]
        except DatabaseError as error:
            raise CopyFailed("The database does not answer.") from error
        if others:
            raise Conflict(f"{STOP_FIRST} There are {others} other connections to the database.")
        return
    connection.close()
    if not Path(connection.settings_dict["NAME"]).exists():
        return
    with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=2, isolation_level=None)) as probe:
        try:
            probe.execute("PRAGMA locking_mode = EXCLUSIVE")  # with a log beside it others hold a shared lock
            probe.execute("BEGIN EXCLUSIVE")
            probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            raise Conflict(f"{STOP_FIRST} Somebody has the database open.") from None
        except sqlite3.Error as error:
            raise CopyFailed(f"SQLite says: {error}.") from error


def column(source: Path, table: str, name: str) -> Iterator[str]:
    """Read one column of a table out of a copy: of text without tabs and line breaks.

    Raises:
        CopyFailed: the copy cannot be read, or has no such table.
    """
    if source.name == FILE_NAMES["sqlite"]:
        try:
            with closing(sqlite3.connect(source)) as copy:
                rows = copy.execute(f'SELECT "{name}" FROM "{table}"')  # noqa: S608 - named by our code
                yield from (value for (value,) in rows)
        except sqlite3.Error as error:
            raise CopyFailed(f"SQLite says: {error}.") from error
        return
    argv = ["pg_restore", "--data-only", f"--table={table}", "--file=-", str(source)]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as restore,
    ):
        place = None
        for line in cast(IO[bytes], restore.stdout):
            if place is None and line.startswith(b"COPY "):
                names = line[line.index(b"(") + 1 : line.index(b")")].decode().split(", ")
                place = names.index(name)
            elif line == b"\\.\n":
                place = None
            elif place is not None:
                yield line.split(b"\t")[place].rstrip(b"\n").decode()
        if restore.wait():
            raise CopyFailed(f"pg_restore says: {_first_line(said)}")


def is_empty() -> bool:
    """Tell whether the database has no tables.

    Raises:
        CopyFailed: it does not answer.
    """
    try:
        return not connection.introspection.table_names()
    except DatabaseError as error:
        raise CopyFailed("The database does not answer.") from error


def _open_sqlite() -> sqlite3.Connection:
    return sqlite3.connect(connection.settings_dict["NAME"], timeout=20)


def _arguments(program: str) -> tuple[list[str], str]:
    """Return how a program of PostgreSQL is told of our server, and the name of the database."""
    settings = connection.settings_dict | {"OPTIONS": {}}
    psql, _ = DatabaseClient.settings_to_cmd_args_env(settings, [])
    return [program, *psql[1:-1]], str(connection.settings_dict["NAME"])


def _environment() -> dict[str, str]:
    _, secret = DatabaseClient.settings_to_cmd_args_env(connection.settings_dict, [])
    return os.environ | (secret or {})


def _run(argv: list[str]) -> None:
    try:
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                argv, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            )
            if done.returncode:
                raise CopyFailed(f"{argv[0]} says: {_first_line(said)}")
    except FileNotFoundError:
        raise CopyFailed(f"{argv[0]} is not installed: it comes with PostgreSQL's client programs.") from None


def _first_line(said: IO[str]) -> str:
    said.seek(0)
    return said.readline().strip() or "nothing"
