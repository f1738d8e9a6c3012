"""What training uses of images, base models and adapters: asked before anything of them is deleted for good."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Exists, OuterRef

from imagehub.jobs.models import JobStatus
from training.models import DatasetImage, TrainingRun

UNFINISHED = (JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING)


def images_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which images runs that have not ended learn from. What has ended can be told without them."""
    runs = TrainingRun.objects.filter(dataset=OuterRef("dataset"), status__in=UNFINISHED)
    used = DatasetImage.objects.filter(Exists(runs), image__in=keys).values_list("image", flat=True)
    return dict.fromkeys(used.distinct(), "A training run that has not ended learns from it.")


def base_models_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which base models runs name, ended or not: their rows say what their adapters were trained on."""
    used = TrainingRun.objects.filter(base_model__in=keys).order_by().values_list("base_model", flat=True)
    return dict.fromkeys(used.distinct(), "Training runs name it: disable it instead.")


def adapters_in_use(keys: list[Any]) -> Mapping[Any, str]:
    """Return which adapters came out of runs that still run: they are about to be completed with them."""
    used = TrainingRun.objects.filter(status=JobStatus.RUNNING, adapters__in=keys)
    return dict.fromkeys(
        used.values_list("adapters", flat=True).distinct(), "A run that has not ended has made it."
    )
