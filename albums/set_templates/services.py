"""Replacing the rows of a set."""

from django.db import transaction

from albums.models import Album
from albums.services.albums import lock_album
from albums.set_templates.csv_rows import Row
from albums.set_templates.validation import validate_set_template
from imagehub.accounts import audit


def replace_rows(album: Album, rows: list[Row]) -> Album:
    """Give an album other rows, and record it; return the album as it is then.

    An album that is no set template may be given rows too, before it becomes one.

    Raises:
        AlbumGone: somebody deleted the album in the meantime.
        Invalid: with these rows it is no valid set.
    """
    with transaction.atomic():
        # The lock on PostgreSQL: whoever changes the texts of the set waits, and then sees these rows.
        lock_album(album)
        album = Album.objects.get(pk=album.pk)
        before, album.set_rows = album.set_rows, rows
        validate_set_template(album)
        Album.objects.filter(pk=album.pk).update(set_rows=rows)
        audit.record("album.replace_rows", album, before={"set_rows": before}, after={"set_rows": rows})
    return album
