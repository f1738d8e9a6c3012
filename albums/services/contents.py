"""Who may take a stored file away: nobody while somebody inserts a row that needs it."""

from collections.abc import Iterable

from django.db import connection


def hold_contents(sha256s: Iterable[str]) -> None:
    """Keep the files with these contents from being purged until the transaction ends.

    To be called by whoever inserts images, after the insert: a file that is there then stays for the row. On SQLite
    a transaction that writes is alone anyway.
    """
    _lock("pg_advisory_xact_lock_shared", sha256s)


def hold_contents_alone(sha256: str) -> None:
    """Wait until nobody holds these contents, and let nobody hold them until the transaction ends."""
    _lock("pg_advisory_xact_lock", [sha256])


def _lock(function: str, sha256s: Iterable[str]) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for number in sorted({int(sha256[:15], 16) for sha256 in sha256s}):
                cursor.execute(f"SELECT {function}(%s)", [number])
