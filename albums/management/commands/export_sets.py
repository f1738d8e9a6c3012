from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from albums.models import Album
from albums.set_templates.exporting import export_sets
from imagehub.accounts import audit
from imagehub.errors import ImageHubError


class Command(BaseCommand):
    help = "Write set templates into a new or empty folder, as import_sets reads them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="The folder.")
        parser.add_argument(
            "--key",
            action="append",
            metavar="KEY",
            help="Only the set of this key. May be given several times.",
        )

    def handle(self, *, folder: Path, key: list[str] | None, **options: Any) -> None:
        albums = Album.objects.set_templates().order_by("created_at", "id")
        if key:
            albums = albums.filter(set_key__in=key)
            if missing := sorted(set(key) - set(albums.values_list("set_key", flat=True))):
                raise CommandError(f"There is no set with the key: {', '.join(missing)}.")
        try:
            with audit.running_command():
                keys = export_sets(folder, albums)
        except (ImageHubError, OSError) as error:
            raise CommandError(str(error)) from error
        for exported in keys:
            self.stdout.write(exported)
        self.stdout.write(self.style.SUCCESS(f"{len(keys)} sets written."))
