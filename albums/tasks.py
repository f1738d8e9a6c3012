"""What Django-Q calls. Each is named by its dotted path in a message or a schedule."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError, IntegrityError

from albums import consistency
from albums.models import Image, ImageLook, ImageQuerySet
from albums.pictures import UnreadablePicture
from albums.placeholders import NOTHING_TO_SHOW, placeholder_of
from albums.services import ImageFileMissing, fingerprint_of, remember_looks
from albums.thumbnails import render_missing
from imagehub.config import get_config
from imagehub.database import drop_connections
from imagehub.storage import StorageFull, StorageUnreachable

logger = logging.getLogger(__name__)

BATCH = 100
CATCH_UP_FOR = timedelta(minutes=2)
"""How long one look for unprepared images may take of a worker, every few minutes."""

LOOK_FOR = timedelta(minutes=10)
"""How long the daily look for images of which nobody knows how they look may take."""


class _NotNow(Exception):
    """Nothing can be prepared at the moment; another time it can."""


def prepare_images(image_ids: list[str]) -> int:
    """Make the missing thumbnails and placeholders of images, and note how they look; return how many images are ready.

    Errors end here: Django-Q would store their texts and tracebacks as they are, and :func:`catch_up` comes anyway.
    """
    try:
        return sum(_prepare(image) for image in Image.objects.live().filter(pk__in=image_ids))
    except _NotNow:
        return 0
    except DatabaseError as error:
        logger.error("Images cannot be prepared: %s", type(error).__name__)
        drop_connections()
        return 0


def catch_up() -> int:
    """Prepare images that nobody has prepared, because a message was lost; return how many.

    What fails is not tried twice in one run, so that it keeps nobody else from being prepared.
    """
    return _prepare_all(_unprepared, CATCH_UP_FOR)


def look_at_the_rest() -> int:
    """Look at images that were prepared before anybody noted how they look; return how many.

    Where there is none left, this reads one index to its end: it runs daily, and not every few minutes.
    """
    return _prepare_all(_not_looked_at, LOOK_FOR)


def sweep_store() -> int:
    """Delete the files that processes killed between a file and its row have left; return how many there were."""
    return consistency.remove_leftovers(consistency.files_without_rows())


def _prepare_all(waiting: Callable[..., ImageQuerySet], duration: timedelta) -> int:
    """Prepare images in the order of their ids for so long; return how many are ready."""
    ready, last, until = 0, None, time.monotonic() + duration.total_seconds()
    try:
        while time.monotonic() < until and (batch := list(waiting(after=last)[:BATCH])):
            for image in batch:
                ready += _prepare(image)
                last = image
                if time.monotonic() > until:
                    break
    except _NotNow:
        pass
    except DatabaseError as error:
        logger.error("Images cannot be prepared: %s", type(error).__name__)
        drop_connections()
    return ready


def _unprepared(*, after: Image | None) -> ImageQuerySet:
    """Return images without a placeholder, which is made last, in the order of ``image_unprepared``."""
    images = Image.objects.live().filter(placeholder="").order_by("id")
    return images.filter(id__gt=after.pk) if after else images


def _not_looked_at(*, after: Image | None) -> ImageQuerySet:
    """Return images that are prepared but for how they look. Those that cannot be read are left alone."""
    images = Image.objects.live().filter(look=None).exclude(placeholder__in=["", NOTHING_TO_SHOW])
    return images.order_by("id").filter(id__gt=after.pk) if after else images.order_by("id")


def _prepare(image: Image) -> bool:
    """Make what is missing of one image, and tell whether it is ready now."""
    try:
        render_missing(image, get_config().storage.thumbnail_sizes)
        placeholder = image.placeholder
        if placeholder in {"", NOTHING_TO_SHOW}:
            placeholder = placeholder_of(image)
        if not ImageLook.objects.filter(pk=image.pk).exists():
            remember_looks([(image, fingerprint_of(image))])
    except (ImageFileMissing, UnreadablePicture) as error:
        # Grey says that nobody needs to try again, until the picture is stored or asked for anew.
        logger.error("The image %s cannot be prepared: %s", image.pk, error.code)
        placeholder = NOTHING_TO_SHOW
    except (StorageFull, StorageUnreachable) as error:
        logger.error("No image can be prepared: %s", error.code)
        raise _NotNow from error
    except IntegrityError:  # somebody has purged it meanwhile
        return False
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001 - one image must not keep the others waiting
        logger.error("The image %s cannot be prepared: %s", image.pk, type(error).__name__)
        return False
    if placeholder != image.placeholder:
        Image.objects.filter(pk=image.pk).update(placeholder=placeholder)
    return placeholder != NOTHING_TO_SHOW
