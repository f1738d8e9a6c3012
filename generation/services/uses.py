"""What generation uses of what lies below: asked before anything there is deleted for good."""

from collections.abc import Mapping
from typing import Any

from albums.models import Image, ImageLora
from generation.models import GenerationJob
from training.models import BaseModel

ORIGIN = "A picture comes from it."
TRIED_AGAIN = "A job that has not ended tries it again."
MADE_WITH = "Images were made with it: disable it instead."


def adapters_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which adapters images were made with, be they in the trash, or jobs that have not ended name."""
    names = {str(key): key for key in keys}
    used = ImageLora.objects.filter(lora_id__in=names).values_list("lora_id", flat=True).distinct()
    found = {names[name]: MADE_WITH for name in used}
    stacks = GenerationJob.objects.active().exclude(loras=[]).values_list("loras", flat=True)
    for stack in stacks.iterator():
        for lora in stack:
            if key := names.get(str(lora.get("id"))):
                found.setdefault(key, "A job that has not ended uses it.")
    return found


def base_models_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which base models jobs name, ended or not, or images, also in the trash: they say what they were made with."""
    used = GenerationJob.objects.filter(base_model__in=keys).values_list("base_model", flat=True).distinct()
    found = dict.fromkeys(used, "Jobs name it: disable it instead.")
    for pk, name in BaseModel.objects.filter(pk__in=keys).values_list("pk", "name"):
        if pk not in found and Image.objects.filter(base_model=name).exists():
            found[pk] = MADE_WITH
    return found


def images_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which images jobs that have not ended start from."""
    wanted = GenerationJob.objects.active().filter(init_image__in=keys)
    used = wanted.values_list("init_image", flat=True).distinct()
    return dict.fromkeys(used, "A job that has not ended starts from it.")


def jobs_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which jobs images come from, also images in the trash, or jobs that have not ended repeat."""
    made = Image.objects.made_by(*keys).filter(source_kind=Image.SourceKind.GENERATION)
    retried = GenerationJob.objects.active().filter(retry_of__in=keys)
    found = dict.fromkeys(retried.values_list("retry_of", flat=True), TRIED_AGAIN)
    return found | dict.fromkeys(made.values_list("source_id", flat=True), ORIGIN)
