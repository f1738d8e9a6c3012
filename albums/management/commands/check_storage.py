from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from albums import consistency

LINES = 50


class Command(BaseCommand):
    help = (
        "Find images whose file is missing, files that belong to no image, and albums that count their images wrong. "
        "Exits with 1 if there are any."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--fix",
            action="store_true",
            help="Delete the files that belong to no image and are older than an hour, and abandoned staging "
            "folders, and count the images of albums again. Images whose file is missing are only reported.",
        )

    def handle(self, *, fix: bool, **options: Any) -> None:
        report = consistency.check()
        if fix and not report.is_clean:
            self._print(report)
            deleted = consistency.remove_leftovers(report.files_without_rows)
            self.stdout.write(f"Deleted {deleted} leftovers.")
            if recounted := consistency.count_again(report):
                self.stdout.write(f"Counted the images of {recounted} albums again.")
            report = consistency.check()
        self._print(report)
        if not report.is_clean:
            raise CommandError("The rows and the files do not agree.")
        self.stdout.write(self.style.SUCCESS("Clean."))

    def _print(self, report: consistency.Report) -> None:
        self.stdout.write(f"{report.images} images, {report.files} files.")
        self._list("Images without a file", (f"{pk}  {name}" for pk, name in report.rows_without_files))
        self._list(
            "Files without an image",
            (f"{file.name}  {filesizeformat(file.size_bytes)}" for file in report.files_without_rows),
        )
        self._list("Albums that count their images wrong", map(str, report.miscounted_albums))
        self._list("Abandoned staging folders", report.stale_staging)

    def _list(self, title: str, lines: Iterable[str]) -> None:
        lines = list(lines)
        if lines:
            self.stdout.write(self.style.WARNING(f"{title}: {len(lines)}"))
        for line in lines[:LINES]:
            self.stdout.write(f"  {line}")
        if len(lines) > LINES:
            self.stdout.write(f"  … and {len(lines) - LINES} more")
