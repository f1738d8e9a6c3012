"""What both databases can store, and connections of processes that outlive their database's restarts."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error, InterfaceError, OperationalError, connections, models, router
from django.db.transaction import TransactionManagementError

from imagehub.errors import StillBusy

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters of no text in a database: PostgreSQL refuses zero, and half of a surrogate pair cannot be encoded."""

TURN_SECONDS = 10.0
"""How long one waits for others whose turn it is. A turn takes milliseconds: longer, and its holder hangs."""

LOCK_NOT_AVAILABLE = "55P03"
"""What PostgreSQL says when a lock did not come in time (its manual, appendix A)."""

TOO_COMPLEX = "54"
"""The one class of PostgreSQL's operational errors that a statement is to blame for (its manual, appendix A)."""


LASTING = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY})
"""SQLite's operational errors that no waiting mends: a wrong statement, and a file that we may not write."""


def is_unavailable(error: Error) -> bool:
    """Tell whether an error says nothing of what was asked, but that the database could not answer just now.

    It is away, starts, stops, has no space or no connection left, or others held what was needed for too long. SQLite
    calls a table that is missing an operational error as well; that one is a bug like any other. So is the wrong use of a
    cursor, which is an interface error as a connection that was closed is.
    """
    if isinstance(error, InterfaceError):
        return "connection" in str(error) and "closed" in str(error)
    if not isinstance(error, OperationalError):
        return False
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return cause.sqlite_errorcode & 0xFF not in LASTING
    return not (getattr(cause, "sqlstate", None) or "").startswith(TOO_COMPLEX)


def drop_connections() -> None:
    """Close this thread's connections after a database error; the next query opens new ones.

    One inside a transaction is left alone: whoever opened the transaction has to end it.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def take_turn(name: str, *, using: str, wait_seconds: float = TURN_SECONDS) -> None:
    """Wait until nobody else is in a transaction that took the turn of this name; others wait until ours ends.

    Raises:
        StillBusy: another one has had it for all of ``wait_seconds``. The transaction must not go on.
        TransactionManagementError: there is no transaction.
    """
    connection = connections[using]
    if not connection.in_atomic_block:
        raise TransactionManagementError("A turn is taken inside a transaction.")
    if (
        connection.vendor != "postgresql"
    ):  # SQLite's transactions are IMMEDIATE: there is one writer at a time
        return
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        try:
            cursor.execute(  # in one go: a claim takes as long as it takes to ask
                f"SET LOCAL lock_timeout = {max(1, int(wait_seconds * 1000))};"  # milliseconds
                f" SELECT pg_advisory_xact_lock({number});"
                " SET LOCAL lock_timeout TO DEFAULT"
            )
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            raise StillBusy("Others are at it for too long. Try again in a moment.") from None


def insert_like(pattern: models.Model, each: Mapping[str, Sequence[Any]]) -> None:
    """Insert rows like an unsaved one, which differ in a few columns, by one statement however many they are.

    What differs travels as one JSON parameter, and the rest is written once: ten thousand rows of a wide table take a
    third of the time of ``bulk_create``, which to SQLite sends a statement for every 999 values. No signals are sent.

    Args:
        pattern: what all rows have in common.
        each: by the names of the columns that differ, among them the primary key, one value for each row. They hold
            text, numbers, ids and nulls.

    Raises:
        IntegrityError: one of the rows breaks a constraint, and none is there.
    """
    model = type(pattern)
    connection = connections[router.db_for_write(model)]
    quote = connection.ops.quote_name
    places = {name: place for place, name in enumerate(each)}
    columns = [model._meta.get_field(name) for name in each]
    rows = [
        [field.get_db_prep_save(value, connection) for field, value in zip(columns, values, strict=True)]
        for values in zip(*each.values(), strict=True)
    ]
    is_postgresql = connection.vendor == "postgresql"
    selected, params = [], []
    for field in model._meta.concrete_fields:
        # Without its length: a cast would cut what is too long, and the column refuses it.
        kind = (field.db_type(connection) or "").partition("(")[0]
        if field.name in places:
            item = f"item.value ->> {places[field.name]}"
            selected.append(
                f"CAST({item} AS {kind})"
                if is_postgresql
                else f"json_extract(item.value, '$[{places[field.name]}]')"
            )
        else:
            selected.append(f"CAST(%s AS {kind})" if is_postgresql else "%s")
            params.append(field.get_db_prep_save(field.pre_save(pattern, add=True), connection))
    source = "jsonb_array_elements(%s::jsonb) AS item(value)" if is_postgresql else "json_each(%s) AS item"
    names = ", ".join(quote(field.column) for field in model._meta.concrete_fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {quote(model._meta.db_table)} ({names}) SELECT {', '.join(selected)} FROM {source}",  # noqa: S608
            [*params, json.dumps(rows, cls=DjangoJSONEncoder)],
        )
