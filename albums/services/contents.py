"""Who may take a stored file away: nobody while somebody inserts a row that needs it."""

from collections.abc import Collection, Iterable

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


def try_to_hold_contents_alone(sha256s: Collection[str]) -> set[str]:
    """Let nobody hold these contents until the transaction ends; return those of them that nobody holds already.

    It does not wait, so that whoever wants many stands in nobody's way.
    """
    if connection.vendor != "postgresql" or not sha256s:
        return set(sha256s)
    numbers = {sha256: _number(sha256) for sha256 in sha256s}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT number, pg_try_advisory_xact_lock(number) FROM unnest(%s::bigint[]) AS number",
            [list(set(numbers.values()))],
        )
        held = {number for number, is_held in cursor.fetchall() if is_held}
    return {sha256 for sha256, number in numbers.items() if number in held}


def _lock(function: str, sha256s: Iterable[str]) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for number in sorted({_number(sha256) for sha256 in sha256s}):
                cursor.execute(f"SELECT {function}(%s)", [number])


def _number(sha256: str) -> int:
    return int(sha256[:15], 16)
