from django.apps import AppConfig
from django.db.models.signals import post_migrate


class JobsConfig(AppConfig):
    name = "imagehub.jobs"
    label = "jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from imagehub.jobs import checks, schedules  # noqa: F401 - needs loaded apps

        post_migrate.connect(schedules.ensure_schedules, sender=self)
