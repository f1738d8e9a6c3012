"""What becomes of pictures that look like others: batches as a crawler leaves them, and the library for real."""

import io

import PIL.Image
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from albums.models import Image, ImageLook
from albums.services import looks_of, remember_looks
from albums.similarity import Fingerprint
from albums.tests.factories import AlbumFactory, ImageFactory, stored_files
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from scraping.crawler.assignment import Sizes
from scraping.crawler.pictures import examine, store
from scraping.models import ScrapedImage
from scraping.services.crawls import start_crawl
from scraping.services.folders import folder_of
from scraping.services.intake import look_and_take_in
from scraping.tests.factories import ScrapedImageFactory, ScrapeJobFactory
from scraping.tests.sites import drawing

pytestmark = pytest.mark.django_db

LARGE, SMALL = (480, 360), (240, 180)


def copy(seed, size=SMALL, quality=60):
    """Return a picture as others show it: smaller, and compressed again."""
    target = io.BytesIO()
    with PIL.Image.open(io.BytesIO(drawing(seed, LARGE))) as original:
        original.convert("RGB").resize(size, PIL.Image.Resampling.LANCZOS).save(
            target, "JPEG", quality=quality
        )
    return target.getvalue()


def image(content, size, **values):
    """Return an image of the library that somebody has looked at."""
    image = ImageFactory(content=content, width=size[0], height=size[1], **values)
    with PIL.Image.open(io.BytesIO(content)) as picture:
        remember_looks([(image, Fingerprint.of(picture))])
    return image


def found(job, *contents):
    """Return rows, unsaved, of pictures that a crawler has just stored."""
    folder = folder_of(job).pictures
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for content in contents:
        picture = examine(content, Sizes(min_side=32))
        store(content, picture, folder)
        item = ScrapedImageFactory.build(
            job=job,
            sha256=picture.sha256,
            format=picture.format,
            width=picture.width,
            height=picture.height,
            fingerprint=str(picture.fingerprint),
        )
        items.append(item)
    return items


def taken(job, *contents):
    items = found(job, *contents)
    look_and_take_in(job, items)
    return list(ScrapedImage.objects.filter(key__in=[item.key for item in items]).order_by("position"))


def crawl_into(*images):
    """Return a crawl whose album has images already."""
    return ScrapeJobFactory(album=AlbumFactory(images=images))


@pytest.fixture
def job(db):
    return crawl_into()


class TestAlbum:
    def test_a_smaller_copy_is_a_duplicate(self):
        original = image(drawing(1, LARGE), LARGE)
        job = crawl_into(original)
        files = set(stored_files())

        one, other = taken(job, copy(1), drawing(2, SMALL))

        assert (one.state, one.reason, one.image, one.resembles) == (
            "duplicate",
            "near_duplicate",
            original,
            None,
        )
        assert (other.state, other.resembles) == ("saved", None)
        assert set(stored_files()) - files == {other.image.storage_name}
        assert set(Image.objects.in_album(job.album)) == {original, other.image}

    def test_one_as_large_is_a_duplicate(self):
        original = image(drawing(1, LARGE), LARGE)
        job = crawl_into(original)

        (item,) = taken(job, copy(1, LARGE))

        assert (item.state, item.image) == ("duplicate", original)

    def test_a_larger_one_is_taken_for_somebody_to_choose(self):
        smaller = image(copy(1), SMALL)
        job = crawl_into(smaller)

        (item,) = taken(job, drawing(1, LARGE))

        assert (item.state, item.resembles, item.is_settled) == ("saved", smaller, False)
        assert set(Image.objects.in_album(job.album)) == {smaller, item.image}

    def test_the_same_bytes_are_told_from_what_looks_the_same(self):
        original = image(drawing(1, LARGE), LARGE)
        job = crawl_into(original)

        (item,) = taken(job, drawing(1, LARGE))

        assert (item.state, item.reason, item.image) == ("duplicate", "in_album", original)
        assert item.resembles is None

    def test_one_that_cannot_be_read_resembles_nothing(self):
        job = crawl_into(image(drawing(1, LARGE), LARGE))
        (item,) = found(job, copy(1))
        (folder_of(job).pictures / item.file_name).write_bytes(copy(1)[:900])

        look_and_take_in(job, [item])

        item.refresh_from_db()
        assert (item.state, item.image, item.resembles) == ("filtered", None, None)


class TestLibrary:
    def test_a_copy_of_what_is_elsewhere_is_taken_for_somebody_to_choose(self, job):
        original = image(drawing(1, LARGE), LARGE)

        one, other = taken(job, copy(1), drawing(2, SMALL))

        assert (one.state, one.resembles) == ("saved", original)
        assert (other.state, other.resembles) == ("saved", None)
        assert set(Image.objects.in_album(job.album)) == {one.image, other.image}

    def test_the_same_bytes_resemble_nothing(self, job):
        original = image(drawing(1, LARGE), LARGE)

        (item,) = taken(job, drawing(1, LARGE))

        assert (item.state, item.reason, item.image) == ("duplicate", "in_library", original)
        assert item.resembles is None

    def test_what_is_in_the_trash_is_not_there(self, job):
        image(drawing(1, LARGE), LARGE, deleted_at="2026-01-01T00:00Z")

        (item,) = taken(job, copy(1))

        assert (item.state, item.resembles) == ("saved", None)


class TestCrawl:
    def test_how_new_images_look_is_known_at_once(self, job):
        (item,) = taken(job, drawing(1))

        assert looks_of([item.image_id])[item.image_id].resembles(examine(drawing(1), Sizes()).fingerprint)

    def test_the_larger_one_that_came_later_resembles_the_smaller(self, job):
        smaller, other, larger = taken(job, copy(1), drawing(2), drawing(1, LARGE))

        assert {item.state for item in (smaller, other, larger)} == {"saved"}
        assert (smaller.resembles, other.resembles, larger.resembles) == (None, None, smaller.image)

    def test_one_that_was_shown_to_a_reviewer_is_taken(self):
        original = image(drawing(1, LARGE), LARGE)
        job = crawl_into(original)
        (item,) = found(job, copy(1))
        item.resembles = original

        look_and_take_in(job, [item])

        item.refresh_from_db()
        assert (item.state, item.resembles) == ("saved", original)

    @pytest.mark.django_db(transaction=True)
    def test_what_waits_for_review_says_what_it_resembles(self, site, staff, quick):
        original = image(drawing(1, LARGE), LARGE)
        site.show("/", "<img src=/copy.jpg><img src=/other.png>")
        site.show("/copy.jpg", copy(1))
        site.show("/other.png", drawing(2))
        job = start_crawl(owner=staff, url=site.url(), needs_review=True)

        assert run_next(get_kind("scraping"))

        items = job.items.order_by("url")
        assert [(item.state, item.resembles) for item in items] == [("review", original), ("review", None)]
        assert ImageLook.objects.count() == 1


def test_it_takes_as_many_queries_for_many_as_for_one():
    job = crawl_into(*(image(copy(seed), SMALL) for seed in range(8)))
    one, many = found(job, drawing(0, LARGE)), found(job, *(drawing(seed, LARGE) for seed in range(1, 8)))
    counts = []
    for items in (one, many):
        with CaptureQueriesContext(connection) as queries:
            look_and_take_in(job, items)
        counts.append(len([one for one in queries if "advisory" not in one["sql"]]))
        assert {item.state for item in items} == {"saved"}
        assert all(item.resembles_id for item in items)

    assert counts[0] == counts[1]
