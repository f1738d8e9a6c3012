"""Crawls in lists: all that is told of many of them at once, without the thousands of addresses that each may have been given."""

from typing import Any

from django.db.models import F, Func, JSONField, QuerySet, TextField, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce

from scraping.models import ScrapeJob

ADDRESSES = ("start_urls", "image_urls")
"""What of ``ScrapeJob.config`` may be long."""


class _WithoutAddresses(Func):
    """The configuration of a crawl but for its addresses: the database leaves them out, so that they are not even read."""

    output_field = JSONField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        paths = ", ".join(f"'$.{name}'" for name in ADDRESSES)
        return self.as_sql(compiler, connection, template=f"JSON_REMOVE(%(expressions)s, {paths})", **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        names = ", ".join(f"'{name}'" for name in ADDRESSES)
        return self.as_sql(
            compiler, connection, template=f"(%(expressions)s - ARRAY[{names}]::text[])", **context
        )


def for_lists(jobs: QuerySet[ScrapeJob]) -> QuerySet[ScrapeJob]:
    """Return crawls with ``short_config`` and ``first_url`` in the place of ``config``, which is not read."""
    firsts = [KT(f"config__{name}__0") for name in ADDRESSES]
    return jobs.defer("config").annotate(
        short_config=_WithoutAddresses(F("config")),
        first_url=Coalesce(*firsts, Value(""), output_field=TextField()),
    )
