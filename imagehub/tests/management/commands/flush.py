"""Emptying the database after each test that commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.core.management.commands import flush
from django.core.management.sql import emit_post_migrate_signal
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

STAYING = {ContentType._meta.db_table, Permission._meta.db_table}
"""What ``post_migrate`` makes of the models alone, by some two hundred queries."""

CREATE_PERMISSIONS = "django.contrib.auth.management.create_permissions"


class Command(flush.Command):
    """Django's own, in a fraction of its time: each test that commits ends with it.

    It deletes what is there. PostgreSQL's TRUNCATE makes new files for each table and index of all apps, also the empty ones,
    which took longer than most of these tests.
    """

    def handle(self, **options: Any) -> None:
        connection = connections[options["database"]]
        if tables := _with_rows(connection):
            connection.ops.execute_sql_flush(
                [f"DELETE FROM {connection.ops.quote_name(table)}" for table in tables]
            )
        if not options.get("inhibit_post_migrate"):
            with _models_known():
                emit_post_migrate_signal(options["verbosity"], options["interactive"], options["database"])


def _with_rows(connection: BaseDatabaseWrapper) -> list[str]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    tables = sorted(set(tables) - STAYING)
    quoted = map(connection.ops.quote_name, tables)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'EXISTS(SELECT 1 FROM {table})' for table in quoted)}")
        return [table for table, has_rows in zip(tables, cursor.fetchone(), strict=True) if has_rows]


@contextmanager
def _models_known() -> Iterator[None]:
    """Let nobody look whether there are new models: the tests have none."""
    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(dispatch_uid=CREATE_PERMISSIONS)
    try:
        yield
    finally:
        post_migrate.connect(create_contenttypes)
        post_migrate.connect(create_permissions, dispatch_uid=CREATE_PERMISSIONS)
