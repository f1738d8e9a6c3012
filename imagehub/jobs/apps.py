from django.apps import AppConfig
from django.db.models.signals import post_migrate


class JobsConfig(AppConfig):
    name = "imagehub.jobs"
    label = "jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_q.signals import post_execute_in_worker, pre_execute  # needs loaded apps

        from imagehub.jobs import busy, checks, schedules  # noqa: F401 - as well

        post_migrate.connect(schedules.ensure_schedules, sender=self)
        pre_execute.connect(busy.begin)
        post_execute_in_worker.connect(busy.end)
