"""What staff do to albums in the admin is theirs to do, and is recorded."""

import pytest
from django.urls import reverse

from albums.models import Album
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client):
    client.force_login(UserFactory(staff=True, username="ada"))
    return client


def form(album, images=(), **values):
    rows = {
        f"memberships-{number}-{name}": value
        for number, image in enumerate(images)
        for name, value in {"image": image.pk, "position": number, "album": album.pk}.items()
    }
    return {
        "name": album.name,
        "kind": album.kind,
        "visibility": album.visibility,
        "set_rows": "[]",
        "loras": "[]",
        "memberships-TOTAL_FORMS": len(images),
        "memberships-INITIAL_FORMS": 0,
    } | rows | values  # fmt: skip


def recorded():
    entries = AuditEntry.objects.filter(target_type__startswith="albums.").order_by("id")
    assert {(entry.actor_name, entry.via) for entry in entries} <= {("ada", "admin")}
    return entries


def test_a_change_is_recorded_field_by_field(staff):
    album, image = AlbumFactory(name="before"), ImageFactory()

    response = staff.post(
        reverse("admin:albums_album_change", args=[album.pk]),
        form(album, [image], name="after", visibility="public"),
    )

    assert response.status_code == 302
    change, membership, place = recorded()
    assert (change.action, change.target_id) == ("album.change", str(album.pk))
    assert change.before == {"name": "before", "visibility": "private"}
    assert change.after == {"name": "after", "visibility": "public"}
    assert (membership.action, membership.after) == ("album.add_images", {"image_ids": [str(image.pk)]})
    assert (place.action, place.after) == ("album.place_images", {"positions": {str(image.pk): 0}})


def test_an_album_that_is_made_and_one_that_is_deleted(staff):
    album = AlbumFactory.build(name="new")
    staff.post(reverse("admin:albums_album_add"), form(album))
    made = Album.objects.get()
    made.memberships.create(image=ImageFactory(), position=0)

    staff.post(reverse("admin:albums_album_delete", args=[made.pk]), {"post": "yes"})

    assert not Album.objects.exists()
    assert [(entry.action, entry.target_label) for entry in recorded()] == [
        ("album.create", "new"),
        ("album.delete", "new"),
    ]
