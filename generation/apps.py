from django.apps import AppConfig

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import JobKind, register


class GenerationConfig(AppConfig):
    name = "generation"
    verbose_name = "Generation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from generation import tasks
        from generation.models import GenerationJob

        register(JobKind("generation", GenerationJob, Cluster.GENERATION, tasks.generate))
