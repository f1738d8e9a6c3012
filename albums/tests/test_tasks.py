from datetime import time

import pytest
from django.db import IntegrityError, connection, transaction
from django_q.models import OrmQ, Schedule
from django_q.signing import SignedPackage

from albums import tasks
from albums.models import Image, ImageLook
from albums.placeholders import NOTHING_TO_SHOW
from albums.services import looks_of, remember_looks, request_derivatives
from albums.tasks import catch_up, look_at_the_rest, prepare_images
from albums.tests.factories import ImageFactory, picture
from albums.thumbnails import thumbnail_name
from imagehub import storage
from imagehub.storage import StorageFull

pytestmark = pytest.mark.django_db

DAMAGED = picture(size=(600, 600))[:400] + b"!"


def placeholders():
    return list(Image.objects.order_by("id").values_list("placeholder", flat=True))


def thumbnails_of(image):
    return [size for size in (150, 300, 600) if storage.exists(thumbnail_name(image.sha256, size))]


class TestPrepareImages:
    def test_makes_every_thumbnail_and_the_placeholder(self, anywhere):
        image = ImageFactory(content=picture(size=(700, 500)))

        assert prepare_images([str(image.pk)]) == 1

        image.refresh_from_db()
        assert thumbnails_of(image) == [150, 300, 600]
        assert 6 < len(image.placeholder) <= 40
        assert looks_of([image.pk])

    def test_does_nothing_the_second_time(self, monkeypatch):
        image = ImageFactory()
        prepare_images([str(image.pk)])
        monkeypatch.setattr("albums.thumbnails.render", None)
        monkeypatch.setattr("albums.placeholders.encode", None)
        monkeypatch.setattr(tasks, "fingerprint_of", None)

        assert prepare_images([str(image.pk)]) == 1

    def test_passes_over_what_is_deleted_or_in_the_trash(self):
        gone, trashed = ImageFactory(), ImageFactory(deleted_at="2026-01-01T00:00Z")
        pk = str(gone.pk)
        gone.delete()

        assert prepare_images([pk, str(trashed.pk)]) == 0
        assert placeholders() == [""]

    def test_gives_up_a_damaged_picture_and_goes_on(self):
        damaged, whole = ImageFactory(content=DAMAGED), ImageFactory()

        assert prepare_images([str(damaged.pk), str(whole.pk)]) == 1
        assert placeholders()[0] == NOTHING_TO_SHOW
        assert placeholders()[1] not in {"", NOTHING_TO_SHOW}

    def test_takes_up_again_what_was_repaired(self):
        image = ImageFactory(placeholder=NOTHING_TO_SHOW)

        assert prepare_images([str(image.pk)]) == 1
        assert placeholders() != [NOTHING_TO_SHOW]

    def test_gives_up_nothing_for_want_of_space(self, monkeypatch):
        def full(*args):
            raise StorageFull("The disk is full.")

        monkeypatch.setattr(tasks, "render_missing", full)
        images = [ImageFactory(), ImageFactory()]

        assert prepare_images([str(image.pk) for image in images]) == 0
        assert placeholders() == ["", ""]

    def test_lets_no_error_out(self, monkeypatch):
        monkeypatch.setattr(tasks, "placeholder_of", None)  # calling it is a TypeError

        assert prepare_images([str(ImageFactory().pk)]) == 0
        assert placeholders() == [""]


class TestCatchUp:
    def test_prepares_what_nobody_has_prepared(self):
        ImageFactory.create_batch(2)
        ImageFactory(placeholder="done")

        assert catch_up() == 2
        assert "" not in placeholders()
        assert catch_up() == 0

    def test_is_not_held_up_by_what_fails(self, monkeypatch):
        prepare = tasks._prepare
        first = ImageFactory()
        ImageFactory.create_batch(3, content=picture(color="blue"))
        tried = []

        def failing(image):
            tried.append(image.pk)
            return False if image == first else prepare(image)

        monkeypatch.setattr(tasks, "BATCH", 1)
        monkeypatch.setattr(tasks, "_prepare", failing)

        assert catch_up() == 3
        assert len(tried) == len(set(tried)) == 4

    def test_ends_when_its_time_is_over(self, monkeypatch):
        monkeypatch.setattr(tasks, "CATCH_UP_FOR", tasks.timedelta(microseconds=1))
        ImageFactory.create_batch(3)

        assert catch_up() <= 1

    def test_looks_only_at_its_index(self):
        plan = tasks._unprepared(after=ImageFactory())[: tasks.BATCH].explain()
        if connection.vendor == "postgresql":  # on a table this small it would rather read it all
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
            plan = tasks._unprepared(after=ImageFactory())[: tasks.BATCH].explain()

        assert "image_unprepared" in plan

    def test_has_a_schedule(self):
        schedule = Schedule.objects.get(func="albums.tasks.catch_up")

        assert (schedule.schedule_type, schedule.minutes) == (Schedule.MINUTES, 5)


class TestLookAtTheRest:
    def test_looks_at_what_was_prepared_before(self):
        image, unprepared = ImageFactory(placeholder="done"), ImageFactory()
        ImageFactory(placeholder=NOTHING_TO_SHOW)
        ImageFactory(placeholder="done", deleted_at="2026-01-01T00:00Z")

        assert look_at_the_rest() == 1
        assert list(ImageLook.objects.values_list("image", flat=True)) == [image.pk]
        assert look_at_the_rest() == 0
        unprepared.refresh_from_db()
        assert unprepared.placeholder == ""

    def test_is_not_held_up_by_what_was_purged_meanwhile(self, monkeypatch):
        images = ImageFactory.create_batch(3, placeholder="done")

        def purged(pairs):
            ((image, _),) = pairs
            if image == images[0]:
                raise IntegrityError("quotes a row")
            remember_looks(pairs)

        monkeypatch.setattr(tasks, "remember_looks", purged)

        assert look_at_the_rest() == 2

    def test_has_a_schedule(self):
        schedule = Schedule.objects.get(func="albums.tasks.look_at_the_rest")

        assert schedule.schedule_type == Schedule.DAILY


def test_the_store_is_swept_daily():
    schedule = Schedule.objects.get(func="albums.tasks.sweep_store")

    assert schedule.schedule_type == Schedule.DAILY
    assert schedule.next_run.time() == time(4, 30)


@pytest.mark.django_db(transaction=True)
class TestRequestDerivatives:
    def messages(self):
        return [SignedPackage.loads(row.payload) for row in OrmQ.objects.filter(key="default")]

    def test_asks_the_default_cluster_once_for_a_batch_of_images(self):
        ids = [f"0198-{number}" for number in range(150)]

        request_derivatives(ids)

        messages = self.messages()
        assert {message["func"] for message in messages} == {"albums.tasks.prepare_images"}
        assert [len(message["args"][0]) for message in messages] == [100, 50]
        assert messages[0]["args"][0] + messages[1]["args"][0] == ids

    def test_asks_only_when_the_images_are_there(self):
        with transaction.atomic():
            request_derivatives(["one"])
            assert self.messages() == []
            transaction.set_rollback(True)

        assert self.messages() == []

    def test_loses_no_image_when_nobody_can_be_asked(self, monkeypatch):
        def broken(*args, **kwargs):
            raise ConnectionError

        monkeypatch.setattr("imagehub.jobs.queue.async_task", broken)

        with transaction.atomic():
            image = ImageFactory()
            request_derivatives([image.pk])

        assert Image.objects.filter(pk=image.pk).exists()
