"""Asking for what is made from pictures: thumbnails and placeholders."""

import uuid
from collections.abc import Iterable

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import send

IMAGES_A_MESSAGE = 100


def request_derivatives(image_ids: Iterable[uuid.UUID | str]) -> None:
    """Have the missing thumbnails and placeholders of images made, once this transaction commits.

    To ask twice does no harm, and a request that is lost none either: :func:`albums.tasks.catch_up` finds what is left.
    """
    ids = [str(image_id) for image_id in image_ids]
    for start in range(0, len(ids), IMAGES_A_MESSAGE):
        send(Cluster.DEFAULT, "albums.tasks.prepare_images", ids[start : start + IMAGES_A_MESSAGE])
