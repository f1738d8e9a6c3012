"""How the rows of a set are stored."""

import json
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class RowsField(models.JSONField):
    """JSON that keeps the order of its keys, on every database.

    The columns of a set have an order: it is that of the CSV file, and where nothing else names a picture, the first
    column does. PostgreSQL's ``jsonb`` would sort them by length, so there the text is stored as it is.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return "text" if connection.vendor == "postgresql" else super().db_type(connection)

    def get_db_prep_value(
        self,
        value: Any,
        connection: BaseDatabaseWrapper,
        prepared: bool = False,  # noqa: FBT001, FBT002 - as Django calls it
    ) -> Any:
        return json.dumps(value, cls=self.encoder)
