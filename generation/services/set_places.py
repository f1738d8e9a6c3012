"""Where the pictures of a set stand in its album: in the order of the rows, however they finish."""

from django.db.models import OuterRef, Subquery

from albums.models import Album, AlbumImage, Image
from albums.services import make_room, next_position
from generation.models import GenerationJob


def position_in_set(job: GenerationJob, album: Album | None) -> int | None:
    """Return the position that the picture of a set's row is to have in an album, and see that it is free.

    It stands behind those of the rows before it and in front of those after it, wherever people have put them
    meanwhile. Room is left for the rows between, so that a set that has an album for itself has each row at its index. To
    be called with the album's lock held, in the transaction that inserts the picture. None is the end of the album:
    nothing is said about pictures that belong to no set.
    """
    if album is None or job.set_run_id is None or job.set_index is None:
        return None
    place = AlbumImage.objects.filter(
        album=album.pk, image__source_kind=Image.SourceKind.GENERATION, image__source_id=OuterRef("pk")
    )
    others = (
        GenerationJob.objects.filter(set_run=job.set_run_id)
        .annotate(place=Subquery(place.values("position")[:1]))
        .filter(place__isnull=False)
        .values_list("set_index", "place")
    )
    before = others.filter(set_index__lt=job.set_index).order_by("-set_index").first()
    if before and not album.memberships.filter(position__gt=before[1]).exists():
        return before[1] + job.set_index - before[0]  # as it is mostly: the rows come in their order
    after = others.filter(set_index__gt=job.set_index).order_by("set_index").first()
    if before is None and after is None:
        return next_position(album) + job.set_index
    wanted, nearest = _between(job.set_index, before, after)
    if wanted is not None and not album.memberships.filter(position=wanted).exists():
        return wanted
    make_room(album, nearest)
    return nearest


def _between(
    index: int, before: tuple[int, int] | None, after: tuple[int, int] | None
) -> tuple[int | None, int]:
    """Return the position that leaves room for the rows between, if there is one, and the nearest at any rate."""
    if before is not None:
        wanted, nearest = before[1] + index - before[0], before[1] + 1
        return (wanted if after is None or wanted < after[1] else None), nearest
    assert after is not None  # noqa: S101 - one of them is there
    wanted = after[1] - (after[0] - index)
    return (wanted if wanted >= 0 else None), after[1]
