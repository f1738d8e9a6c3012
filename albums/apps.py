from datetime import time
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AlbumsConfig(AppConfig):
    name = "albums"
    verbose_name = "Albums and images"

    def ready(self) -> None:
        from albums import checks, image_lineage, legacy  # noqa: F401 - importing the checks registers them
        from albums.legacy.library import import_library
        from albums.planner import write_figures
        from albums.services import purging
        from albums.services.stored_files import originals_of_rows
        from imagehub.operations import backups, file_kinds

        file_kinds.register("media", "originals", "images", in_bucket=originals_of_rows)
        file_kinds.register("media", "thumbnails", "thumbnails")
        backups.register_column("albums_image", "storage_name", "media")
        image_lineage.register()
        purging.register()
        legacy.register("library", import_library)
        post_migrate.connect(write_figures, sender=self)
        post_migrate.connect(_ensure_schedules, sender=self)


def _ensure_schedules(**_: Any) -> None:
    from imagehub.jobs.schedules import ensure_schedule  # needs loaded apps

    ensure_schedule("Prepare images", "albums.tasks.catch_up", minutes=5)
    ensure_schedule("Look at images", "albums.tasks.look_at_the_rest", daily_at=time(3, 30))
    ensure_schedule("Sweep the store", "albums.tasks.sweep_store", daily_at=time(4, 30))
