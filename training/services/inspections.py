"""Looking at the files of images, in the background: a preflight tells what is known, and has the rest looked at."""

import errno
import logging
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Exists, OuterRef

from albums.models import Album, AlbumImage, Image
from albums.pictures import UnreadablePicture, open_picture
from albums.services import ImageFileMissing, fingerprint_of, local_image, remember_looks
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import send
from training.models import ImageInspection

logger = logging.getLogger(__name__)

AT_ONCE = 100
LONGEST_LOOK = timedelta(minutes=2)
"""After that a worker does other things; whoever asks next has it go on."""

SEEN = ("mode", "is_animated", "has_alpha", "problem", "inspected_at")

Problem = ImageInspection.Problem


def request_inspection(albums: Sequence[Album]) -> None:
    """Have the images of albums looked at that nobody has looked at yet, once this transaction commits."""
    send(Cluster.DEFAULT, "training.tasks.inspect_albums", [str(album.pk) for album in albums])


def inspect_albums(album_ids: Sequence[str]) -> int:
    """Look at the images of albums that nobody has looked at yet, or in vain; return how many of them are known now.

    What could not be read may come back: a file from a backup, a disk that was not mounted.

    Raises:
        StorageFull, StorageUnreachable, StillBusy: pictures cannot be read now.
    """
    until = time.monotonic() + LONGEST_LOOK.total_seconds()
    places = AlbumImage.objects.filter(album__in=album_ids, image=OuterRef("pk"))
    known = ImageInspection.objects.filter(image=OuterRef("pk"), problem="")
    waiting = Image.objects.live().filter(Exists(places)).exclude(Exists(known)).order_by("pk")
    count = 0
    last = uuid.UUID(int=0)
    while time.monotonic() < until and (batch := list(waiting.filter(pk__gt=last)[:AT_ONCE])):
        found = [seen for image in batch if (seen := inspect(image)) is not None]
        ImageInspection.objects.bulk_create(
            found, update_conflicts=True, unique_fields=["image"], update_fields=SEEN
        )
        remember_looks((seen.image, seen.fingerprint) for seen in found if seen.fingerprint)
        count += len(found)
        last = batch[-1].pk
    return count


def inspect(image: Image) -> ImageInspection | None:
    """Look at one image; return what was seen, unsaved, or None where this machine failed and nothing is said of the image.

    Only the header of the file is read here. How it looks is told from its smallest thumbnail, which was rendered
    when it was taken in, or is rendered now.

    Raises:
        StorageFull, StorageUnreachable, StillBusy: it cannot be looked at now.
    """
    seen = ImageInspection(image=image)
    try:
        with local_image(image) as path, open_picture(path) as picture:
            seen.mode = picture.mode
            seen.is_animated = getattr(picture, "n_frames", 1) > 1
            seen.has_alpha = picture.has_transparency_data
        seen.fingerprint = fingerprint_of(image)
    except (ImageFileMissing, FileNotFoundError):
        seen.problem = Problem.MISSING
    except (UnreadablePicture, OSError, ValueError) as error:
        logger.warning("The image %s cannot be read: %s", image.pk, type(error).__name__)
        if _is_of_the_machine(error):
            return None
        seen.problem = Problem.UNREADABLE
    return seen


def _is_of_the_machine(error: Exception) -> bool:
    """Tell whether a file could not be read, whatever is in it.

    What Pillow says of a damaged picture bears no number, or that of a jump to where there is nothing.
    """
    cause = error.__cause__ if isinstance(error, UnreadablePicture) else error
    return isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL)
