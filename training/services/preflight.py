"""What there is to know before a run begins: what keeps it from being worth it, and what it would take.

Nothing is decoded here. What a picture's row does not say is looked up in :class:`training.models.ImageInspection`, and what
nobody has looked at yet is looked at in the background: a later report knows it.
"""

import math
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from django.template.defaultfilters import filesizeformat

from albums.batches import in_batches
from albums.models import Album
from albums.services import looks_of
from albums.similarity import near_duplicates
from imagehub import room, roots
from imagehub.config import get_config
from training.datasets.buckets import Box, Size, batches_in, crop_box, cropped_share, histogram
from training.datasets.captions import MOST_TOKENS, is_too_long, names, token_counter
from training.datasets.splits import Role, split
from training.estimates import Estimate, estimate_training
from training.models import BaseModel, ImageInspection, TrainingRun
from training.recipe import Recipe
from training.services.base_models import path_of_base_model
from training.services.datasets import Candidate, PicturesGone, candidates_of, lack_of_pictures
from training.services.inspections import request_inspection

MOST_NAMED = 50
"""So many images are named with a finding. How many there are is told beside it."""

HEAVY_CROP = 0.35
"""A picture that loses a larger share of itself deserves a look."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be, and the images that it is about."""

    code: str
    detail: str
    images: tuple[uuid.UUID, ...] = ()
    """The first of them."""
    count: int = 0
    pointer: str | None = None
    """The field of the request that would change it."""


@dataclass(frozen=True)
class Crop:
    """What is left of a picture that is cropped: a box in its own pixels."""

    image: uuid.UUID
    bucket: Size
    box: Box
    share: float
    """How much is cut off, from 0 to 1."""


@dataclass(frozen=True)
class Counts:
    """How many images of each sort there are."""

    images: int
    captioned: int
    usable: int
    train: int
    validation: int
    inspected: int


@dataclass(frozen=True)
class Report:
    """What a preflight has found."""

    counts: Counts
    buckets: dict[Size, int]
    """Of the pictures to learn from, by width and height."""
    steps_per_epoch: int
    epochs: float
    crops: tuple[Crop, ...]
    """Of the pictures that lose most, which are cropped in the middle."""
    estimate: Estimate | None
    """What it is expected to take; None where nobody can tell."""
    blockers: list[Finding] = field(default_factory=list)
    """With any of these, a run is refused."""
    warnings: list[Finding] = field(default_factory=list)


def preflight(
    albums: Sequence[Album], recipe: Recipe, *, base_model: BaseModel | None = None, trigger_word: str = ""
) -> Report:
    """Report on the training of albums.

    Args:
        albums: whose pictures are to be learned.
        recipe: how.
        base_model: whose tokenizer counts the tokens of captions; without one on this machine they are counted roughly.
        trigger_word: what the captions should name.

    Raises:
        TooManyImages: there are more than a data set may have.
    """
    report = report_on(
        candidates_of(albums, recipe), recipe, base_model=base_model, trigger_word=trigger_word
    )
    in_vain = {"missing_files", "unreadable_pictures"}.intersection(item.code for item in report.blockers)
    if in_vain or report.counts.inspected < report.counts.images:
        request_inspection(albums)
    return report


def preflight_of_run(run: TrainingRun) -> Report:
    """Report on a run that is made already: on the pictures and captions of its data set, as far as they are there still."""
    rows = run.dataset.images.filter(image__isnull=False, image__deleted_at=None)
    found = [
        Candidate(row.image, row.caption, row.repeats, (row.bucket_width, row.bucket_height))
        for row in rows.select_related("image").order_by("position")
    ]
    recipe = Recipe.model_validate(run.config)
    report = report_on(found, recipe, base_model=run.base_model, trigger_word=run.trigger_word)
    if detail := lack_of_pictures(run.dataset):
        report.blockers.append(Finding(PicturesGone.code, detail))
    return report


def report_on(
    found: Sequence[Candidate], recipe: Recipe, *, base_model: BaseModel | None = None, trigger_word: str = ""
) -> Report:
    """Report on the training of pictures; see :func:`preflight`."""
    usable = [candidate for candidate in found if candidate.is_usable]
    roles = split({candidate.image.sha256 for candidate in usable}, share=recipe.validation_share)
    looks = _inspections(candidate.image.pk for candidate in found)
    learned = [candidate for candidate in usable if roles[candidate.image.sha256] == "train"]
    steps = steps_per_epoch(learned, recipe)
    report = Report(
        counts=Counts(
            images=len(found),
            captioned=sum(bool(candidate.caption) for candidate in found),
            usable=len(usable),
            train=len(learned),
            validation=len(usable) - len(learned),
            inspected=len(looks),
        ),
        buckets=histogram(candidate.bucket for candidate in learned if candidate.bucket),
        steps_per_epoch=steps,
        epochs=round(recipe.steps / steps, 2) if steps else 0.0,
        crops=tuple(_crops(usable)),
        estimate=_estimate(usable, recipe, base_model),
    )
    report.blockers.extend([*_blockers(usable, looks), *_about_space(report.estimate)])
    report.warnings.extend(
        [
            *_about_amounts(report, recipe),
            *_about_layers(recipe),
            *_about_pictures(found, usable, looks),
            *_about_buckets(learned, recipe),
            *_about_captions(found, usable, base_model, trigger_word),
            *_about_duplicates(usable, roles),
        ]
    )
    return report


def steps_per_epoch(learned: Iterable[Candidate], recipe: Recipe) -> int:
    """Return how many optimizer steps it takes until every picture to learn from was shown as often as it should be."""
    shown: dict[Size | None, int] = defaultdict(int)
    for candidate in learned:
        shown[candidate.bucket] += candidate.repeats
    batches = batches_in(shown.values(), recipe.batch_size)
    return math.ceil(batches / recipe.gradient_accumulation_steps)


def _inspections(image_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, ImageInspection]:
    return {
        row.image_id: row
        for batch in in_batches(image_ids)
        for row in ImageInspection.objects.filter(image__in=batch)
    }


def _crops(usable: Sequence[Candidate]) -> Iterator[Crop]:
    cut = [
        (share, candidate.image.pk, candidate)
        for candidate in usable
        if candidate.bucket and (share := cropped_share(candidate.size, candidate.bucket)) > 0
    ]
    for share, pk, candidate in nsmallest(MOST_NAMED, cut, key=lambda one: (-one[0], one[1])):
        bucket = candidate.bucket or candidate.size
        yield Crop(pk, bucket, crop_box(candidate.size, bucket), round(share, 4))


def _estimate(usable: Sequence[Candidate], recipe: Recipe, base_model: BaseModel | None) -> Estimate | None:
    if base_model is None:
        return None
    size = sum(candidate.image.size_bytes for candidate in usable)
    return estimate_training(recipe, base_model, pictures=len(usable), picture_bytes=size)


def _about_space(estimate: Estimate | None) -> Iterator[Finding]:
    if estimate is not None and (detail := lack_of_space(estimate.disk_bytes)):
        yield Finding("disk_full", detail)


def lack_of_space(needed_bytes: int) -> str | None:
    """Return why a run that takes so much of the disk does not fit, or None where it does."""
    left = room.free_bytes(roots.training_root()) - get_config().storage.minimum_free_bytes
    if needed_bytes <= left:
        return None
    return f"It would take {filesizeformat(needed_bytes)} of the disk, and {filesizeformat(max(left, 0))} may be used."


def _blockers(usable: Sequence[Candidate], looks: dict[uuid.UUID, ImageInspection]) -> Iterator[Finding]:
    least = get_config().training.minimum_images
    if len(usable) < least:
        detail = f"{len(usable)} images with a caption are large enough; training needs {least}."
        yield Finding("not_enough_images", detail, count=len(usable), pointer="/album_ids")
    problems = ImageInspection.Problem
    for code, problem, detail in (
        ("missing_files", problems.MISSING, "Their files are not in the store."),
        ("unreadable_pictures", problems.UNREADABLE, "Their files cannot be read."),
    ):
        yield from _finding(code, detail, usable, _seen(looks, lambda look, of=problem: look.problem == of))


def _about_amounts(report: Report, recipe: Recipe) -> Iterator[Finding]:
    limits = get_config().training
    if limits.minimum_images <= report.counts.usable < limits.recommended_images:
        detail = f"{report.counts.usable} images are few; {limits.recommended_images} are recommended."
        yield Finding("few_images", detail, count=report.counts.usable, pointer="/album_ids")
    if recipe.validation_share and not report.counts.validation:
        detail = "No picture is kept apart to measure by: there will be no validation loss."
        yield Finding("no_validation", detail, pointer="/config/validation_share")
    if recipe.validation_share and report.counts.validation and not recipe.validation_every:
        detail = "Pictures are kept apart to measure by, and nothing is measured."
        yield Finding("validation_unused", detail, pointer="/config/validation_every")
    if 0 < report.epochs < 1:
        detail = "It ends before every picture was shown."
        yield Finding("less_than_an_epoch", detail, pointer="/config/steps")
    if left := report.counts.images - report.counts.inspected:
        detail = f"{left} pictures have not been looked at yet: ask again in a moment."
        yield Finding("not_inspected", detail, count=left)


def _about_layers(recipe: Recipe) -> Iterator[Finding]:
    targets = recipe.target_modules
    if isinstance(targets, str):
        return
    cross_attention = (".attn2.to_k", ".attn2.to_v")
    if not any(
        one.endswith(f".{target}") or f".{target}".endswith(one)
        for one in cross_attention
        for target in targets
    ):
        detail = (
            "No layer that reads the prompt in the denoiser is trained (attn2.to_k, attn2.to_v): the adapter follows the "
            "prompt less, and other programs cannot tell by its shapes which base model it is for."
        )
        yield Finding("no_cross_attention", detail, pointer="/config/target_modules")


def _about_pictures(
    found: Sequence[Candidate], usable: Sequence[Candidate], looks: dict[uuid.UUID, ImageInspection]
) -> Iterator[Finding]:
    yield from _finding(
        "too_small",
        "They are too small for any bucket, and left out.",
        found,
        lambda candidate: candidate.bucket is None,
        pointer="/config/allow_upscaling",
    )
    yield from _finding(
        "heavy_crop",
        f"More than {HEAVY_CROP:.0%} of them is cut off.",
        usable,
        lambda candidate: (
            bool(candidate.bucket) and cropped_share(candidate.size, candidate.bucket) > HEAVY_CROP
        ),
    )
    yield from _finding(
        "animated",
        "Only their first picture is learned.",
        usable,
        _seen(looks, lambda look: look.is_animated),
    )
    yield from _finding(
        "transparent",
        "What can be seen through is learned as white.",
        usable,
        _seen(looks, lambda look: look.has_alpha),
    )
    yield from _finding(
        "cmyk",
        "Their colors are meant for print, and are converted.",
        usable,
        _seen(looks, lambda look: look.mode == "CMYK"),
    )


def _about_buckets(learned: Sequence[Candidate], recipe: Recipe) -> Iterator[Finding]:
    if recipe.batch_size > 1:
        sizes = histogram(candidate.bucket for candidate in learned if candidate.bucket)
        yield from _finding(
            "singletons",
            "No other picture has their bucket, so their batches hold nothing else.",
            learned,
            lambda candidate: candidate.repeats == 1 and sizes.get(candidate.bucket or (0, 0)) == 1,
            pointer="/config/batch_size",
        )


def _about_captions(
    found: Sequence[Candidate], usable: Sequence[Candidate], base_model: BaseModel | None, trigger_word: str
) -> Iterator[Finding]:
    yield from _finding(
        "missing_captions", "They have no caption, and are left out.", found, lambda one: not one.caption
    )
    count = token_counter(path_of_base_model(base_model) if base_model else None)
    yield from _finding(
        "long_captions",
        f"What goes beyond {MOST_TOKENS} tokens is not read.",
        usable,
        lambda candidate: is_too_long(candidate.caption or "", count),
    )
    if trigger_word:
        yield from _finding(
            "captions_without_trigger_word",
            "Their captions do not name the trigger word.",
            usable,
            lambda candidate: not names(candidate.caption or "", trigger_word),
            pointer="/trigger_word",
        )


def _about_duplicates(usable: Sequence[Candidate], roles: dict[str, Role]) -> Iterator[Finding]:
    equal: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in usable:
        equal[candidate.image.sha256].append(candidate)
    copies = [one for group in equal.values() if len(group) > 1 for one in group]
    yield from _finding("exact_duplicates", "Their files are equal to those of others.", copies)

    first = {group[0].image.pk: group[0] for group in equal.values()}
    known = looks_of(first)
    groups = near_duplicates({pk: known[pk] for pk in first if pk in known})
    alike = [first[pk] for group in groups for pk in group]
    yield from _finding("near_duplicates", "They look like others of them.", alike)
    torn = [
        first[pk]
        for group in groups
        if len({roles[first[pk].image.sha256] for pk in group}) > 1
        for pk in group
    ]
    yield from _finding(
        "validation_resembles_training",
        "They are learned, and others that look the same are kept apart to measure by: the measure is too good.",
        torn,
    )


def _finding(
    code: str,
    detail: str,
    candidates: Iterable[Candidate],
    applies: Callable[[Candidate], bool] = lambda _: True,
    *,
    pointer: str | None = None,
) -> Iterator[Finding]:
    """Yield a finding about those candidates to which it applies, if there are any."""
    hit = [candidate.image.pk for candidate in candidates if applies(candidate)]
    if hit:
        yield Finding(code, detail, tuple(hit[:MOST_NAMED]), len(hit), pointer)


def _seen(
    looks: dict[uuid.UUID, ImageInspection], sees: Callable[[ImageInspection], bool]
) -> Callable[[Candidate], bool]:
    """Return what tells of a candidate whether a look at its file has shown something."""

    def applies(candidate: Candidate) -> bool:
        look = looks.get(candidate.image.pk)
        return look is not None and sees(look)

    return applies
