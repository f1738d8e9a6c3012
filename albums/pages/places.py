"""Places in a list, newest first, as an address can hold them."""

import uuid
from datetime import UTC, datetime

from django.http import Http404

from albums.models import Album


def write_place(album: Album) -> str:
    """Return where an album stands."""
    return f"{album.created_at.isoformat()}~{album.pk}"


def read_place(text: str) -> tuple[datetime, uuid.UUID]:
    """Read what :func:`write_place` wrote.

    Raises:
        Http404: nobody was ever sent to this place.
    """
    created_at, _, pk = text.partition("~")
    try:
        return datetime.fromisoformat(created_at).astimezone(UTC), uuid.UUID(pk)
    except (ValueError, OverflowError) as error:
        raise Http404 from error
