"""A PostgreSQL database of our own, where a server answers."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

USUAL = "postgres://postgres@127.0.0.1:5432/postgres"


def postgres_server() -> str | None:
    """Return the address of a PostgreSQL server: ``DATABASE_URL``, or the usual local one; None if it is silent."""
    url = os.environ.get("DATABASE_URL") or USUAL
    if not url.startswith(("postgres://", "postgresql://")):
        return None
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return None
    return url


@contextmanager
def temporary_database(server: str) -> Iterator[str]:
    """Create a database, yield its address, and drop it."""
    name = f"imagehub_bench_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
