"""Models, adapters and training runs in the admin."""

from training.admin.labeling import LabelingJobAdmin
from training.admin.registry import AdapterAdmin, BaseModelAdmin
from training.admin.runs import TrainingRunAdmin

__all__ = ["AdapterAdmin", "BaseModelAdmin", "LabelingJobAdmin", "TrainingRunAdmin"]
