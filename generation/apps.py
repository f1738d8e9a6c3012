from django.apps import AppConfig

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import JobKind, register


class GenerationConfig(AppConfig):
    name = "generation"
    verbose_name = "Generation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from generation import tasks  # noqa: PLC0415 - needs loaded apps
        from generation.models import GenerationJob  # noqa: PLC0415

        register(JobKind("generation", GenerationJob, Cluster.GENERATION, tasks.generate))
