"""Taking in requests for pictures: a row first, and then the doorbell."""

import secrets
from collections.abc import Iterable
from typing import TypeVar

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from albums.models import Album, Image
from albums.services import AlbumGone, ImageGone
from generation.models import MAX_SEED, GenerationJob, SetRun
from generation.services.quotas import check_quota
from generation.services.stacks import hold_adapters
from imagehub.errors import Conflict, ImageHubError, Invalid
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import ring
from training.pipelines.schedulers import problem_with

Requested = TypeVar("Requested", GenerationJob, SetRun)


class KeyUsedDifferently(Conflict):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used for another request"


def draw_seed() -> int:
    """Return a random seed, for requests that name none. It is stored like any other."""
    return secrets.randbelow(MAX_SEED + 1)


def submit_generation(job: GenerationJob) -> tuple[GenerationJob, bool]:
    """Save a new job, and queue it. Returns the job, and whether it is new.

    A job with an ``idempotency_key`` that its owner has used before is answered with the earlier job.

    Raises:
        AdapterMissing: somebody deleted or disabled one of its adapters in the meantime.
        AlbumGone, ImageGone: somebody deleted its album, or the image it starts from, in the meantime.
        Invalid: its parameters do not go together.
        KeyUsedDifferently: the earlier job came from a different request.
        QueueFull, QuotaExceeded, BeyondQuota: see :func:`check_quota`.
        ValidationError: a value is out of range.
    """
    if earlier := _earlier(job):
        return earlier, False
    check_parameters(job)
    try:
        with transaction.atomic():
            # The image first: who puts it into the trash holds it, and then wants its albums.
            _hold_image(job.init_image)
            hold_albums([job.album] if job.album else [])
            hold_adapters(job.loras)
            check_quota(job.owner, images=job.n, pixels=job.n * job.width * job.height)
            job.save(force_insert=True)
            GenerationJob.objects.filter(pk=job.pk).enqueue()
            ring(Cluster.GENERATION)
    except (IntegrityError, ImageHubError):
        if earlier := _earlier(job):
            return (
                earlier,
                False,
            )  # the same request, sent twice at once: the other one took the key, or the last place
        raise
    job.refresh_from_db()
    return job, True


def check_parameters(job: GenerationJob) -> None:
    """Check the values of an unsaved job, each by itself and together.

    Raises:
        Invalid: they do not go together.
        ValidationError: one is out of range.
    """
    job.full_clean(validate_constraints=False, exclude=["set_run", "album", "init_image", "retry_of"])
    if found := problem_with(job.scheduler or None, steps=job.steps, strength=job.strength):
        field, detail = found
        raise Invalid(detail, pointer=f"/{field}", code="unfit_for_scheduler")


def hold_albums(albums: Iterable[Album]) -> None:
    """Keep albums from being deleted until the transaction ends.

    Raises:
        AlbumGone: somebody deleted one of them in the meantime.
    """
    wanted = {album.pk: album for album in albums}
    if not wanted:
        return
    rows = Album.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk")
    if gone := wanted.keys() - set(rows.values_list("pk", flat=True)):
        raise AlbumGone(f"The album “{wanted[gone.pop()]}” has been deleted.")


def _hold_image(image: Image | None) -> None:
    if image is None:
        return
    rows = Image.objects.live().select_for_update(no_key=True).filter(pk=image.pk)
    if not rows.values_list("pk", flat=True).first():
        raise ImageGone("The image to start from has been deleted.")


def _earlier(job: GenerationJob) -> GenerationJob | None:
    return find_earlier(
        GenerationJob,
        owner=job.owner,
        idempotency_key=job.idempotency_key,
        body_digest=job.body_digest,
    )


def find_earlier(
    model: type[Requested], *, owner: User, idempotency_key: str, body_digest: str
) -> Requested | None:
    """Return what was made when somebody sent a request with this key before; None without a key, or the first time.

    Whoever asks before all else answers a repeated request alike, whatever has been used up or deleted meanwhile.

    Raises:
        KeyUsedDifferently: the earlier request had another body.
    """
    if not idempotency_key:
        return None
    earlier = model._default_manager.filter(owner=owner, idempotency_key=idempotency_key).first()
    if earlier is not None and earlier.body_digest != body_digest:
        raise KeyUsedDifferently("This Idempotency-Key belongs to a request with another body.")
    return earlier
