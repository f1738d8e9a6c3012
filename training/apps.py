from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from imagehub import in_use
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import JobKind, register


class TrainingConfig(AppConfig):
    name = "training"
    verbose_name = "Models and training"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from albums.legacy import register as register_importer
        from albums.models import Image
        from imagehub.operations import file_kinds
        from training import measures, outlook, tasks
        from training.legacy import import_runs
        from training.models import Adapter, BaseModel, LabelingJob, TrainingRun
        from training.services import lineage, purging
        from training.services.places import COLLECTED, IMPORTED
        from training.services.run_folders import CACHE
        from training.services.uses import adapters_in_use, base_models_in_use, images_in_use

        file_kinds.register("training", "checkpoints", "runs/*/checkpoints")
        file_kinds.register("training", "pictures", "runs/*/images")
        file_kinds.register("training", "runs", "runs")
        file_kinds.register("training", "cache", CACHE)
        file_kinds.register("models", "adapters", IMPORTED, COLLECTED)
        file_kinds.register("models", "base_models", "*")
        lineage.register()
        purging.register()
        register_importer("training", import_runs)
        post_migrate.connect(_ensure_schedules, sender=self)
        in_use.register(Adapter, adapters_in_use)
        in_use.register(BaseModel, base_models_in_use)
        in_use.register(Image, images_in_use)
        register(
            JobKind(
                "labeling",
                LabelingJob,
                Cluster.TRAINING,
                tasks.label,
                writes_to=["var"],
                measure=measures.measure_labeling,
            )
        )
        register(
            JobKind(
                "training",
                TrainingRun,
                Cluster.TRAINING,
                tasks.train,
                estimate=outlook.estimate_seconds,
                obstacles=outlook.obstacles,
                writes_to=["training", "models"],
                facts=outlook.worker_facts,
                measure=measures.measure_run,
                speed=measures.speed_of_run,
            )
        )


def _ensure_schedules(**_: Any) -> None:
    from imagehub.jobs.schedules import ensure_schedule  # needs loaded apps

    ensure_schedule("Promote checkpoints", "training.tasks.promote_waiting", minutes=10)
