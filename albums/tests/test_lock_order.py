"""Everybody takes the same locks in the same order: nobody waits for somebody who waits for them.

PostgreSQL would end one of the two. On SQLite whoever writes is alone.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import connections, transaction
from django.urls import reverse

from albums import services
from albums.models import AlbumImage, Image, Label
from albums.services import labels
from albums.services.albums import lock_album
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

UNTIL_THE_OTHER_WAITS = 0.3


def meanwhile(first, then, other):
    """Do ``first`` and ``then`` in one transaction, and ``other`` between them, in a thread of its own."""
    begun = Event()

    def one():
        try:
            with transaction.atomic():
                first()
                begun.set()
                time.sleep(UNTIL_THE_OTHER_WAITS)
                then()
        finally:
            connections.close_all()

    def another():
        assert begun.wait(10)
        try:
            return other()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(one), pool.submit(another)]
        return [future.result() for future in done][1]


@pytest.fixture
def albums():
    return sorted((AlbumFactory() for _ in range(2)), key=lambda album: album.pk)


@pytest.fixture
def both_are_locked(albums):
    """Have somebody lock the albums in order while something else is done."""
    low, high = albums
    return lambda other: meanwhile(lambda: lock_album(low), lambda: lock_album(high), other)


@pytest.fixture
def admin(client):
    client.force_login(UserFactory(staff=True))
    return client


def act(client, kind, action, rows, **fields):
    data = {"action": action, "_selected_action": [row.pk for row in rows], **fields}
    return client.post(reverse(f"admin:albums_{kind}_changelist"), data)


def test_a_cover_is_chosen_while_the_image_is_shown_to_everybody():
    image = ImageFactory()
    album = AlbumFactory(images=[image])

    meanwhile(
        lambda: services.set_cover(album, image),
        lambda: None,  # what a key refers to is looked at when the transaction ends
        lambda: services.update_image(image, visibility="public"),
    )

    album.refresh_from_db()
    assert (album.cover, album.public_images) == (image, 1)


@pytest.mark.parametrize("direction", [1, -1])
def test_images_change_albums(albums, both_are_locked, direction):
    out_of, album = albums[::direction]
    images = ImageFactory.create_batch(2)
    services.add_images_to_album(out_of, images)

    assert both_are_locked(lambda: services.transfer_images(images, out_of=out_of, album=album)) == 2

    assert {place.album_id for place in AlbumImage.objects.all()} == {album.pk}
    assert Image.objects.count() == 2


@pytest.mark.parametrize(
    ("action", "fields"), [("make_public", {}), ("make_private", {}), ("delete_selected", {"post": "yes"})]
)
def test_an_action_of_the_admin_takes_albums_in_order(admin, albums, both_are_locked, action, fields):
    assert both_are_locked(lambda: act(admin, "album", action, albums, **fields)).status_code == 302


def test_labels_are_put_on_images_in_whatever_order_somebody_names_them(monkeypatch):
    monkeypatch.setattr(labels, "BATCH", 1)
    low, high = sorted(ImageFactory.create_batch(2), key=lambda image: image.pk)
    rows = [services.NewLabel(image.pk, "tag", "heart", "human") for image in (high, low)]

    meanwhile(
        lambda: labels.hold_images([low.pk]),
        lambda: labels.hold_images([high.pk]),
        lambda: services.put_labels(rows),
    )

    assert Label.objects.count() == 2
