import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from albums.set_templates.importing import (
    SHIPPED,
    ImportedSet,
    Outcome,
    SetsUnreadable,
    import_sets,
    summary_of,
)
from imagehub.accounts import audit
from imagehub.accounts.named_user import named_user

LINES = 20


class Command(BaseCommand):
    help = (
        "Create or refresh set templates from a folder with a config.yaml and CSV files. Exits with 1 if a set is "
        "broken; the others are imported all the same."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="The folder.")
        source.add_argument(
            "--shipped",
            action="store_true",
            help="The sets that come with ImageHub: cards, tarot and zodiac.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing.")
        parser.add_argument(
            "--json", action="store_true", dest="as_json", help="Print the report as one JSON object."
        )
        parser.add_argument("--owner", metavar="NAME", help="The user who owns the albums that are made.")

    def handle(
        self,
        *,
        folder: Path | None,
        dry_run: bool,
        as_json: bool,
        owner: str | None,
        **options: Any,
    ) -> None:
        imported: list[ImportedSet] = []
        source = folder or SHIPPED
        try:
            with audit.running_command():
                for item in import_sets(source, owner=named_user(owner), dry_run=dry_run):
                    imported.append(item)
                    if not as_json:
                        self._print(item)
        except SetsUnreadable as error:
            raise CommandError(str(error)) from error
        counts = summary_of(imported)
        if as_json:
            self._print_json(imported, counts, dry_run=dry_run)
        else:
            words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
            self.stdout.write(f"{words}.{' Nothing was written: this was a dry run.' if dry_run else ''}")
        if counts[Outcome.FAILED]:
            raise CommandError("Some sets are broken.")

    def _print(self, item: ImportedSet) -> None:
        style = {Outcome.FAILED: self.style.ERROR, Outcome.SKIPPED: self.style.WARNING}
        about = f"  {item.name}, {item.rows} rows" if item.name else ""
        if item.changed:
            about += f" ({', '.join(item.changed)})"
        self.stdout.write(style.get(item.outcome, str)(f"{item.outcome:9}  {item.key}{about}"))
        lines = [*item.reasons, *(f"Note: {warning}" for warning in item.warnings)]
        for line in lines[:LINES]:
            self.stdout.write(f"           {line}")
        if len(lines) > LINES:
            self.stdout.write(f"           … and {len(lines) - LINES} more")

    def _print_json(self, imported: list[ImportedSet], counts: dict[str, int], *, dry_run: bool) -> None:
        report = {"dry_run": dry_run, **counts, "sets": [asdict(item) for item in imported]}
        self.stdout.write(json.dumps(report, ensure_ascii=False))
