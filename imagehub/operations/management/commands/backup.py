import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from imagehub.accounts import audit
from imagehub.errors import ImageHubError
from imagehub.operations import backups

LINES = 50


class Command(BaseCommand):
    help = (
        "Make a backup below DIR: the files, and the database. What has not changed since the last one is linked. "
        "Exits with 1 where it was made but something is wrong with it."
    )

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
        parser.add_argument(
            "--accept-fewer",
            action="store_true",
            help="A root may have less than half of the files that it had in the backup before.",
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")

    def handle(
        self,
        *,
        folder: Path,
        roots: list[Any],
        keep: int | None,
        accept_fewer: bool,
        as_json: bool,
        **options: Any,
    ) -> None:
        if keep is not None and keep < 1:
            raise CommandError("--keep is 1 or more.")
        try:
            with audit.running_command():
                backup = backups.make_backup(
                    folder.absolute(), roots=roots, keep=keep, accept_fewer=accept_fewer
                )
        except ImageHubError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup could not be written: {error.strerror}.") from error
        self._print_json(backup) if as_json else self._print(backup)
        self._complain(backup)

    def _print_json(self, backup: backups.Backup) -> None:
        counts = {name: vars(copied) for name, copied in backup.copied.items()}
        told = {"path": str(backup.path), "database_bytes": backup.database_bytes, "roots": counts}
        left = {"deleted": backup.deleted, "shrunk": backup.shrunk, "missing": backup.missing}
        self.stdout.write(json.dumps(told | left))

    def _print(self, backup: backups.Backup) -> None:
        self.stdout.write(f"database: {filesizeformat(backup.database_bytes)}")
        for name, copied in backup.copied.items():
            self.stdout.write(
                f"{name}: {copied.files} files, {filesizeformat(copied.bytes)}; {copied.linked} linked, {copied.skipped} skipped"
            )
        if not backup.has_media:
            self.stdout.write("media: in a bucket, which has to be backed up by itself")
        self.stdout.write(self.style.SUCCESS(str(backup.path)))

    def _complain(self, backup: backups.Backup) -> None:
        for title, paths in (
            ("Rows name files that are not there (see check_storage)", backup.missing),
            ("Not what they were, here or in the backup before", backup.damaged),
        ):
            if paths:
                self.stderr.write(f"{title}: {len(paths)}")
            for path in paths[:LINES]:
                self.stderr.write(f"  {path}")
        if backup.shrunk:
            fewer = ", ".join(
                f"{name} has {backup.copied[name].files} files and had {before}"
                for name, before in backup.shrunk.items()
            )
            raise CommandError(
                f"The backup was made, but {fewer}: is it mounted? No older backup was deleted. If it is right, use --accept-fewer."
            )
        if backup.damaged:
            raise CommandError("The backup was made, but files were damaged.")
