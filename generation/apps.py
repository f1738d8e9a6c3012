from django.apps import AppConfig
from django.db.models.signals import pre_delete

from imagehub import in_use
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import JobKind, register


class GenerationConfig(AppConfig):
    name = "generation"
    verbose_name = "Generation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from albums import set_templates
        from albums.models import Album, Image
        from albums.signals import albums_merged
        from generation import facts, measures, outlook, tasks
        from generation.models import GenerationJob
        from generation.services import (
            adapters_of_template,
            follow_merged_albums,
            hold_jobs_of_album,
            lineage,
            purging,
        )
        from generation.services.uses import adapters_in_use, base_models_in_use, images_in_use, jobs_in_use
        from training.models import Adapter, BaseModel

        lineage.register()
        purging.register()
        albums_merged.connect(follow_merged_albums)
        set_templates.register_check(adapters_of_template)
        pre_delete.connect(hold_jobs_of_album, sender=Album)
        in_use.register(Adapter, adapters_in_use)
        in_use.register(BaseModel, base_models_in_use)
        in_use.register(Image, images_in_use)
        in_use.register(GenerationJob, jobs_in_use)
        register(
            JobKind(
                "generation",
                GenerationJob,
                Cluster.GENERATION,
                tasks.generate,
                affinity="base_model_id",
                estimate=outlook.estimate_seconds,
                obstacles=outlook.obstacles,
                writes_to=["media"],
                facts=facts.worker_facts,
                measure=measures.measure,
                gathered=outlook.set_runs_under_way,
            )
        )
