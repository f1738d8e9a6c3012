from datetime import time
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import JobKind, register


class ScrapingConfig(AppConfig):
    name = "scraping"
    verbose_name = "Scraping"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from albums.legacy import register as register_importer
        from imagehub.operations import file_kinds
        from scraping import measures, tasks
        from scraping.legacy import import_crawls
        from scraping.models import ScrapeJob
        from scraping.services import lineage, purging

        file_kinds.register("scraping", "crawls", "jobs")
        file_kinds.register("scraping", "previews", "previews")
        lineage.register()
        purging.register()
        register_importer("scraping", import_crawls)
        post_migrate.connect(_ensure_schedules, sender=self)
        register(
            JobKind(
                "scraping",
                ScrapeJob,
                Cluster.SCRAPING,
                tasks.scrape,
                writes_to=["scraping", "media"],
                measure=measures.measure,
            )
        )


def _ensure_schedules(**_: Any) -> None:
    from imagehub.jobs.schedules import ensure_schedule  # needs loaded apps

    ensure_schedule("Forget hosts", "scraping.tasks.forget_hosts", daily_at=time(4, 30))
    ensure_schedule("Take in approved pictures", "scraping.tasks.take_in_approved", minutes=10)
