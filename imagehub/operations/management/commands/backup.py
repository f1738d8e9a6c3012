import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from imagehub.accounts import audit
from imagehub.errors import ImageHubError
from imagehub.operations import backups


class Command(BaseCommand):
    help = "Make a backup below DIR: the database, then the files. What has not changed since the last one is linked."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", metavar="DIR", type=Path, help="Where backups lie.")
        parser.add_argument(
            "--roots",
            nargs="*",
            choices=backups.ROOTS,
            default=list(backups.USUAL_ROOTS),
            help=f"Which files (default: {' '.join(backups.USUAL_ROOTS)}); without a word after it, the database alone.",
        )
        parser.add_argument("--keep", type=int, metavar="N", help="Then delete all but the N newest.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")

    def handle(
        self, *, folder: Path, roots: list[Any], keep: int | None, as_json: bool, **options: Any
    ) -> None:
        if keep is not None and keep < 1:
            raise CommandError("--keep is 1 or more.")
        try:
            with audit.running_command():
                backup = backups.make_backup(folder.absolute(), roots=roots, keep=keep)
        except ImageHubError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup could not be written: {error.strerror}.") from error
        if as_json:
            counts = {name: vars(copied) for name, copied in backup.copied.items()}
            told = {"path": str(backup.path), "database_bytes": backup.database_bytes, "roots": counts}
            self.stdout.write(json.dumps(told | {"deleted": backup.deleted}))
            return
        self.stdout.write(f"database: {filesizeformat(backup.database_bytes)}")
        for name, copied in backup.copied.items():
            self.stdout.write(
                f"{name}: {copied.files} files, {filesizeformat(copied.bytes)}; {copied.linked} linked, {copied.skipped} skipped"
            )
        if not backup.has_media:
            self.stdout.write("media: in a bucket, which has to be backed up by itself")
        self.stdout.write(self.style.SUCCESS(str(backup.path)))
