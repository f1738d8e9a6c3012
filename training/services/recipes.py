"""From what a request says of a training to a recipe in which nothing is left open."""

import math
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from albums.models import Album
from imagehub.config import get_config
from imagehub.config_schema import Range, TrainingConfig
from imagehub.database import UNSTORABLE
from imagehub.errors import Fault, InvalidFields
from training.models import BaseModel
from training.recipe import LARGEST_SEED, Recipe

POINTER = "/config"
LARGE = 256
"""From this resolution on the sides of buckets are multiples of 64 pixels, as those of other trainers are."""


def resolve_recipe(
    config: Mapping[str, Any], base_model: BaseModel, *, albums: Sequence[Album] = (), trigger_word: str = ""
) -> Recipe:
    """Return the recipe of a training: what is said, and for all else what suits the base model.

    Without a seed one is drawn. Sample pictures of which no prompt is said show the trigger word.

    Args:
        config: fields of a recipe.
        base_model: what the adapter is trained on; its default size is that of the training and of the samples.
        albums: what it is trained on; ``repeats`` names no other.
        trigger_word: that of the run.

    Raises:
        InvalidFields: something is no field of a recipe, or out of the bounds of the configuration. All of it is told.
    """
    values = _defaults(config, base_model, trigger_word) | dict(config)
    recipe = _checked(values, _foreign_repeats(values.get("repeats"), albums))
    repeats = {str(uuid.UUID(name)): times for name, times in recipe.repeats.items()}
    return recipe.model_copy(update={"repeats": repeats})


def with_steps(recipe: Mapping[str, Any], steps: int, *, done: int) -> Recipe:
    """Return the recipe of a run with another number of steps, of which so many are done.

    Raises:
        InvalidFields: fewer than are done, or out of the bounds of the configuration; the pointer is ``/steps``.
    """
    if steps < done:
        raise InvalidFields([Fault("/steps", f"{done} steps are done already.", "out_of_range")])
    try:
        return _checked(dict(recipe) | {"steps": steps})
    except InvalidFields as error:
        raise InvalidFields([Fault("/steps", fault.detail, fault.code) for fault in error.faults]) from error


def _defaults(config: Mapping[str, Any], base_model: BaseModel, trigger_word: str) -> dict[str, Any]:
    bounds = get_config().training.resolution
    usual = 8 * round(math.sqrt(base_model.default_width * base_model.default_height) / 8)
    resolution = config.get("resolution", min(max(usual, bounds.minimum), bounds.maximum))
    is_large = isinstance(resolution, int) and resolution >= LARGE
    defaults = {
        "seed": secrets.randbelow(LARGEST_SEED + 1),
        "resolution": resolution,
        "bucket_step": 64 if is_large else 8,
        "sample_width": base_model.default_width,
        "sample_height": base_model.default_height,
        "sample_guidance_scale": base_model.default_guidance_scale,
    }
    if trigger_word and config.get("sample_every"):
        defaults["sample_prompts"] = [trigger_word]
    return defaults


def _checked(values: dict[str, Any], more: Iterable[Fault] = ()) -> Recipe:
    faults = {fault.pointer: fault for fault in _unstorable(values)}
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        for fault in _faults(error):
            faults.setdefault(fault.pointer, fault)
    for fault in (*_out_of_bounds(values, get_config().training), *more):
        faults.setdefault(fault.pointer, fault)
    if faults or recipe is None:
        raise InvalidFields(list(faults.values()))
    return recipe


def _faults(error: ValidationError) -> Iterator[Fault]:
    for item in error.errors(include_url=False, include_input=False):
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            yield Fault(_pointer(item["loc"]), "There is no such field.", "unknown_field")
        elif not item[
            "loc"
        ]:  # of several fields together; the text begins with the name of the one to change
            yield Fault(f"{POINTER}/{text.partition(' ')[0]}", f"{text}.")
        else:
            yield Fault(_pointer(item["loc"]), f"{text}.")


def _pointer(place: tuple[int | str, ...]) -> str:
    """Return where an error is. In between pydantic names the alternatives of a type, which are no part of the place."""
    first, *rest = place
    parts = [first, *(part for part in rest if isinstance(part, int) or first == "repeats")]
    return "/".join([POINTER, *(_escaped(part) for part in parts if part != "[key]")])


def _out_of_bounds(values: Mapping[str, Any], limits: TrainingConfig) -> Iterator[Fault]:
    """Yield what this server does not allow, though it would be a recipe."""
    bounds: dict[str, Range] = {"steps": limits.steps, "rank": limits.rank, "resolution": limits.resolution}
    for name, allowed in bounds.items():
        value = values.get(name, Recipe.model_fields[name].default)
        if _is_whole(value) and not allowed.minimum <= value <= allowed.maximum:
            yield Fault(
                f"{POINTER}/{name}",
                f"It is from {allowed.minimum} to {allowed.maximum}, as this server is configured.",
                "out_of_range",
            )
    batch = values.get("batch_size", 1)
    if _is_whole(batch) and batch > limits.batch_size_maximum:
        yield Fault(
            f"{POINTER}/batch_size",
            f"It is at most {limits.batch_size_maximum}, as this server is configured.",
            "out_of_range",
        )


def _foreign_repeats(repeats: Any, albums: Sequence[Album]) -> Iterator[Fault]:
    """Yield each name in ``repeats`` that is none of the albums, or one of them for the second time."""
    open_ids = {album.pk for album in albums}
    for name in repeats if isinstance(repeats, Mapping) else ():
        if UNSTORABLE.search(name):
            continue  # which is said already, and a pointer cannot show
        try:
            open_ids.remove(uuid.UUID(name))
        except (ValueError, KeyError):
            detail = "This is not the id of an album of the training, or it stands here twice."
            yield Fault(f"{POINTER}/repeats/{_escaped(name)}", detail, "does_not_exist")


def _unstorable(value: Any, pointer: str = POINTER) -> Iterator[Fault]:
    """Yield each string that no database holds."""
    if isinstance(value, str) and UNSTORABLE.search(value):
        yield Fault(pointer, "It contains a character that cannot be stored.")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _unstorable(inner, f"{pointer}/{place}")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if UNSTORABLE.search(name):
                yield Fault(pointer, "A name in it contains a character that cannot be stored.")
            else:
                yield from _unstorable(inner, f"{pointer}/{_escaped(name)}")


def _escaped(part: object) -> str:
    """Write a name as a part of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
