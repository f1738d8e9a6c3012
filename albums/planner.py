"""What SQLite is told about the size of the tables.

Nobody runs ``ANALYZE`` on a library that grows, and without it SQLite takes ten rows for what any value of an indexed
column has: it would look for one seed among half a million public images. PostgreSQL gathers such figures by itself.
SQLite reads them from a table that may be written by hand (https://sqlite.org/optoverview.html, section 8), and from
the same figures it makes the same plans for every library, small or large.
"""

from typing import Any

from django.db import connections

FIGURES = {
    "albums_image": {
        "image_visible_newest": "1000000 500000 2 1",
        "image_newest": "1000000 2 1",
        "image_visible_best": "1000000 500000 100000 2 1",
        "image_best": "1000000 170000 2 1",
        "image_visible_largest": "1000000 500000 2 1",
        "image_largest": "1000000 2 1",
        "image_visible_by_name": "1000000 500000 10 1",
        "image_by_name": "1000000 10 1",
        "image_by_nsfw": "1000000 330000 2 1",
        "image_by_source": "1000000 250000 2 1",
        "image_by_model": "1000000 50000 2 1",
        "image_by_owner": "1000000 100000 2 1",
        "image_by_seed": "1000000 10 1",
        "image_once_per_source": "1000000 2 1 1",
        "image_visible_starred": "20000 10000 2 1",
        "image_starred": "20000 2 1",
        "image_trash": "10000 1 1",
        "image_unprepared": "1000 1",
        "image_by_content": "1000000 1",
    },
    "albums_imagelora": {"image_lora_images": "1000000 2000 1"},
    "albums_label": {"label_by_identity": "5000000 2500000 500 1"},
}
"""Of each index: how many rows it has, and how many of them share the first column, the first two, and so on."""


def write_figures(using: str, **_: Any) -> None:
    """Write the figures into a SQLite database. Asked after every migration, for those that make a table anew."""
    connection = connections[using]
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        there = set(connection.introspection.table_names(cursor))
        cursor.execute("ANALYZE sqlite_schema")  # makes the table of figures where there is none
        for table, indexes in FIGURES.items():
            if table in there:
                cursor.execute("DELETE FROM sqlite_stat1 WHERE tbl = %s", [table])
                cursor.executemany(
                    "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (%s, %s, %s)",
                    [(table, index, figures) for index, figures in indexes.items()],
                )
        cursor.execute("ANALYZE sqlite_schema")  # and has it read
