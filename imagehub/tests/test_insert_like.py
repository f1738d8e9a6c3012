"""Many rows like one, by one statement."""

import pytest
from django.db import DataError, connection, transaction

from albums.models import Album
from imagehub.database import insert_like
from imagehub.identifiers import new_id

pytestmark = pytest.mark.django_db


def test_rows_differ_in_what_is_said_and_in_nothing_else():
    names = ["Ace of “spades”", "it's {a} %s", "", "♥"]
    insert_like(
        Album(description="cards", kind=Album.Kind.SET),
        {"id": [new_id() for _ in names], "name": names},
    )

    albums = Album.objects.order_by("id")
    assert [album.name for album in albums] == names
    assert {(album.description, album.kind) for album in albums} == {("cards", "set")}


def test_what_is_too_long_is_refused_and_not_cut():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite knows no length")
    with pytest.raises(DataError), transaction.atomic():
        insert_like(Album(), {"id": [new_id(), new_id()], "name": ["short", "x" * 300]})

    assert not Album.objects.exists()
