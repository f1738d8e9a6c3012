from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OperationsConfig(AppConfig):
    name = "imagehub.operations"
    label = "operations"
    verbose_name = "Operations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from imagehub.operations import file_kinds

        file_kinds.register("media", "staging", "staging")
        file_kinds.register("var", "database", "*.sqlite3*")
        file_kinds.register("var", "logs", "logs")
        file_kinds.register("var", "static", "static")
        post_migrate.connect(_ensure_schedules, sender=self)


def _ensure_schedules(**_: Any) -> None:
    from imagehub.jobs.schedules import ensure_schedule  # needs loaded apps

    ensure_schedule("Do purges", "imagehub.operations.tasks.see_to_purges", minutes=5)
    ensure_schedule("Look at disks", "imagehub.operations.tasks.look_at_disks", minutes=5)
