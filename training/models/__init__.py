"""Base models and adapters, the data sets and runs that train them, and the jobs that label pictures."""

from training.models.datasets import Dataset, DatasetImage, Role
from training.models.inspections import ImageInspection
from training.models.labeling import LabelingItem, LabelingJob
from training.models.registry import (
    LARGEST_ADAPTER_WEIGHT,
    SIDE_GRID,
    Adapter,
    AdapterQuerySet,
    Architecture,
    BaseModel,
    BaseModelQuerySet,
)
from training.models.runs import Checkpoint, MetricPoint, Sample, TrainingRun

__all__ = [
    "LARGEST_ADAPTER_WEIGHT",
    "SIDE_GRID",
    "Adapter",
    "AdapterQuerySet",
    "Architecture",
    "BaseModel",
    "BaseModelQuerySet",
    "Checkpoint",
    "Dataset",
    "DatasetImage",
    "ImageInspection",
    "LabelingItem",
    "LabelingJob",
    "MetricPoint",
    "Role",
    "Sample",
    "TrainingRun",
]
