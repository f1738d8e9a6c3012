"""Connections of processes that live long, and outlive their database's restarts."""

from django.db import connections


def drop_connections() -> None:
    """Close this thread's connections after a database error; the next query opens new ones.

    One inside a transaction is left alone: whoever opened the transaction has to end it.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
