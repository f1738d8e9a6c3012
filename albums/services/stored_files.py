"""What rows know of the files in the store."""

from django.db.models import Count, Max, Sum

from albums.models import Image
from imagehub.operations.file_kinds import Usage


def originals_of_rows() -> Usage:
    """Return how many originals there are and how many bytes they have, by what is in the rows: images of one content share a file."""
    files = Image.objects.order_by().values("storage_name").annotate(size=Max("size_bytes"))
    found = files.aggregate(bytes=Sum("size"), files=Count("storage_name"))
    return Usage(bytes=found["bytes"] or 0, files=found["files"])
