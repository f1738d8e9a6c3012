import os

from django.apps import AppConfig

from imagehub.jobs.clusters import Cluster
from imagehub.jobs.registry import JobKind, register


class ErrandsConfig(AppConfig):
    name = "imagehub.jobs.tests.errands"
    label = "errands"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from imagehub.jobs.tests.errands import work
        from imagehub.jobs.tests.errands.models import Errand

        register(JobKind("errand", Errand, Cluster.SCRAPING, work.perform))
        if os.environ.get("IMAGEHUB_TEST_HASTE"):
            from imagehub.jobs.tests.errands.haste import shorten_leases

            shorten_leases()
