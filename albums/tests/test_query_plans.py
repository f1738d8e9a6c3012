"""Lists enter an index where their page begins and sort nothing: asked of the database that the tests run on."""

import contextlib
import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from albums.api.image_views import ImageViewSet
from albums.models import Image
from albums.planner import FIGURES, write_figures
from albums.services import index_words
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SORTS = re.compile(r"TEMP B-TREE|\bSort\b")


@pytest.fixture(params=["visitor", "staff"])
def client(request):
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True) if request.param == "staff" else None)
    return client


@pytest.fixture
def images():
    images = ImageFactory.create_batch(4, public=True, created_at=NOON, starred=True, rating=5, seed=7)
    index_words([image.pk for image in images])
    return images


@contextlib.contextmanager
def large_tables():
    """On PostgreSQL, have a plan for small tables that it would make for large ones. SQLite always does."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for kind in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"):
                cursor.execute(f"SET LOCAL enable_{kind} = off")
    yield


def plan_of(client, url):
    """Return how the database looks for the rows of a page, and the address of the next one."""
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)
    assert response.status_code == 200, response.content
    sql = queries.captured_queries[-1]["sql"]
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with large_tables(), connection.cursor() as cursor:
        cursor.execute(f"{explain} {sql}")
        return "\n".join(str(row[-1]) for row in cursor.fetchall()), response.json()["next"]


INDEXES = {
    "": "newest",
    "ordering=created_at": "newest",
    "ordering=-rating": "best",
    "ordering=rating": "best",
    "ordering=-size_bytes": "largest",
    "ordering=size_bytes": "largest",
    "ordering=name": "by_name",
    "ordering=-name": "by_name",
}


def test_every_ordering_is_looked_at():
    assert {"ordering=" + name for name in ImageViewSet.orderings} - set(INDEXES) == {"ordering=-created_at"}


@pytest.mark.parametrize("query", INDEXES)
def test_an_ordering_walks_its_index_from_the_place_where_the_page_begins(client, images, query):
    index = f"image_{'' if client.handler._force_user else 'visible_'}{INDEXES[query]}"
    if connection.vendor == "postgresql":  # of so few rows it does not care which of the two it takes
        index = INDEXES[query]

    first, url = plan_of(client, f"/api/images?limit=1&{query}")
    second, _ = plan_of(client, url)

    for plan in (first, second):
        assert index in plan
        assert not SORTS.search(plan)
    # The place is entered in one step, by all columns of the key, however many rows share the first of them.
    assert re.search(r"\(\w+,id\)[<>]|\(\w+,created_at,id\)[<>]|Index Cond: .*ROW\(", second)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("starred=true", "starred"),
        ("base_model=starter", "image_by_model"),
        ("nsfw=flagged", "image_by_nsfw"),
        ("source=upload", "image_by_source"),
        ("rating=5", "best"),
    ],
)
def test_a_filter_has_an_index_in_the_order_of_the_list(client, images, query, index):
    plan, _ = plan_of(client, f"/api/images?{query}")

    assert index in plan
    assert not SORTS.search(plan)


@pytest.mark.parametrize(
    ("query", "index"), [("seed=7", "image_by_seed"), (f"source={UUID(int=7)}", "image_once_per_source")]
)
@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL knows how many there are")
def test_what_is_rare_is_looked_up(client, images, query, index):
    assert index in plan_of(client, f"/api/images?{query}")[0]


def test_an_album_is_walked_in_its_order(client, images):
    album = AlbumFactory(public=True, images=images)

    first, url = plan_of(client, f"/api/images?limit=1&album={album.pk}")
    second, _ = plan_of(client, url)

    for plan in (first, second):
        assert "album_in_order" in plan
        assert not SORTS.search(plan)


@pytest.mark.parametrize("query", ["q=picture", "q=picture+-heart", "q=pict*", 'q="a+picture"', "q=-heart"])
def test_a_search_walks_the_words_from_the_newest_down(client, images, query):
    first, url = plan_of(client, f"/api/images?limit=1&{query}")
    second, _ = plan_of(client, url)

    for plan in (first, second):
        assert not SORTS.search(plan)
    if connection.vendor == "sqlite" and query != "q=-heart":
        assert "albums_imagetext_fts VIRTUAL TABLE INDEX 192:M1\n" in first  # 64 and 128: descending by rowid
        assert "albums_imagetext_fts VIRTUAL TABLE INDEX 192:M1<" in second


def test_a_search_in_an_album_walks_the_album(client, images):
    album = AlbumFactory(public=True, images=images)

    plan, _ = plan_of(client, f"/api/images?q=picture&album={album.pk}")

    assert "album_in_order" in plan
    assert not SORTS.search(plan)


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL gathers its own figures")
class TestFigures:
    def indexes(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT tbl_name, name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
            )
            return {(table, name): sql for table, name, sql in cursor.fetchall()}

    def test_name_indexes_that_are_there_and_as_many_columns_as_they_have(self):
        for table, figures in FIGURES.items():
            for name, numbers in figures.items():
                columns = self.indexes()[table, name].partition(" ON ")[2].partition(")")[0].count(",") + 1
                assert len(numbers.split()) == columns + 1, name

    def test_leave_no_index_of_images_out(self):
        assert {name for table, name in self.indexes() if table == "albums_image"} == set(
            FIGURES["albums_image"]
        )

    def test_are_written_as_often_as_one_likes(self):
        for _ in range(2):
            write_figures("default")

        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sqlite_stat1 WHERE tbl LIKE 'albums%'")
            assert cursor.fetchone()[0] == sum(map(len, FIGURES.values()))


def test_the_trash_has_an_index_of_its_own(images):
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))

    plan, _ = plan_of(client, "/api/images?deleted=true")

    assert "image_trash" in plan
    assert not SORTS.search(plan)
    assert Image.objects.visible_to(AnonymousUser()).count() == 4


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite is told its figures by us")
def test_enough_words_are_counted_to_tell_a_rare_one(db):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attstattarget FROM pg_attribute WHERE attrelid = 'albums_imagetext'::regclass AND attname = 'vector'"
        )
        assert cursor.fetchone() == (1000,)
