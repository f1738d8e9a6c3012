import errno

import pytest
from django.db import DatabaseError

from albums.models import Image
from albums.services import looks_of, trash_images
from albums.similarity import Fingerprint
from albums.tests.factories import AlbumFactory, ImageFactory, picture
from imagehub import storage
from training import tasks
from training.models import ImageInspection
from training.services import inspections
from training.services.inspections import inspect, inspect_albums, request_inspection
from training.tests.datasets.albums import captioned_album, image

pytestmark = pytest.mark.django_db


def store(content, suffix, size=(64, 64), file_format="png"):
    stored = storage.store_bytes(content, suffix=suffix)
    return ImageFactory(stored=stored, width=size[0], height=size[1], format=file_format)


def animation():
    from io import BytesIO

    import PIL.Image

    target = BytesIO()
    frames = [PIL.Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(target, "WEBP", save_all=True, append_images=frames[1:])
    return target.getvalue()


def test_a_plain_picture_is_plain(anywhere):
    seen = inspect(image(1))

    assert (seen.mode, seen.is_animated, seen.has_alpha, seen.problem) == ("RGB", False, False, "")
    assert isinstance(seen.fingerprint, Fingerprint)


@pytest.mark.parametrize(
    ("content", "suffix", "expected"),
    [
        (
            picture(size=(64, 64), mode="CMYK", color=(0, 9, 9, 0), file_format="JPEG"),
            "jpg",
            ("CMYK", False, False),
        ),
        (picture(size=(64, 64), mode="RGBA", color=(9, 9, 9, 9)), "png", ("RGBA", False, True)),
        (animation(), "webp", ("RGB", True, False)),
    ],
    ids=["cmyk", "alpha", "animation"],
)
def test_what_is_special_is_seen(content, suffix, expected):
    seen = inspect(store(content, suffix))

    assert (seen.mode, seen.is_animated, seen.has_alpha) == expected
    assert seen.fingerprint


def test_a_missing_file_is_told_from_a_damaged_one(caplog):
    missing = image(1)
    storage.delete(missing.storage_name)
    damaged = store(picture(size=(64, 64))[:40], "png")

    assert inspect(missing).problem == ImageInspection.Problem.MISSING
    assert inspect(damaged).problem == ImageInspection.Problem.UNREADABLE


def test_each_image_of_the_albums_is_looked_at_once(monkeypatch):
    album, other = captioned_album(3), captioned_album(1, first=9)
    trash_images([album.images.first().pk])

    assert inspect_albums([str(album.pk)]) == 2
    assert inspect_albums([str(album.pk)]) == 0
    assert not ImageInspection.objects.filter(image__in=other.images.all()).exists()


def test_what_could_not_be_read_is_looked_at_again():
    album = captioned_album(2)
    ImageInspection.objects.create(image=album.images.first(), problem="unreadable")

    assert inspect_albums([str(album.pk)]) == 2

    assert list(ImageInspection.objects.values_list("problem", flat=True)) == ["", ""]
    assert looks_of(one.pk for one in album.images.all()).keys() == {one.pk for one in album.images.all()}


def test_an_error_of_the_machine_says_nothing_of_a_picture(monkeypatch):
    album = captioned_album(2)

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", fail)
        assert inspect_albums([str(album.pk)]) == 0

    assert not ImageInspection.objects.exists()
    assert inspect_albums([str(album.pk)]) == 2


def test_all_batches_are_looked_at(monkeypatch):
    monkeypatch.setattr(inspections, "AT_ONCE", 2)

    assert inspect_albums([str(captioned_album(5).pk)]) == 5


def test_it_is_asked_for_once_the_transaction_commits(django_capture_on_commit_callbacks, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "imagehub.jobs.queue.async_task", lambda *args, **options: sent.append((args, options))
    )
    album = AlbumFactory()

    with django_capture_on_commit_callbacks(execute=True):
        request_inspection([album])

    assert sent == [
        (("training.tasks.inspect_albums", [str(album.pk)]), {"cluster": "default", "save": False})
    ]


@pytest.mark.parametrize(
    "error", [storage.StorageUnreachable("The bucket is away."), DatabaseError("quotes a row")]
)
def test_the_task_lets_no_error_out(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(inspections, "inspect_albums", fail)

    assert tasks.inspect_albums(["x"]) == 0


def test_an_image_that_is_purged_takes_what_was_seen_along():
    one = image(1)
    inspect(one).save()

    Image.objects.filter(pk=one.pk).delete()

    assert not ImageInspection.objects.exists()
