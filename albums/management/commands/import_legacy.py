import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from albums.legacy import Report, TableReport, run_import
from imagehub.accounts import audit
from imagehub.accounts.named_user import named_user
from imagehub.errors import ImageHubError

LINES = 50


class Command(BaseCommand):
    help = (
        "Import a SQLite database of the system before, and the files that it names. Both are only read. What was "
        "imported before is left out, so that an import can be repeated and resumed. Exits with 1 if a row was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("database", type=Path, metavar="PATH", help="The SQLite file.")
        parser.add_argument(
            "--media",
            type=Path,
            metavar="DIR",
            help="The folder with the files; nothing outside of it is read. Rows name them by paths of their old "
            "machine, of which the longest end counts that is found in it. Default: the folder of the database.",
        )
        parser.add_argument(
            "--owner", metavar="USER", help="Name or address of the user whose all of it will be."
        )
        parser.add_argument("--dry-run", action="store_true", help="Check everything and write nothing.")
        parser.add_argument("--json", action="store_true", help="Print the report as one JSON object.")

    def handle(self, *, database: Path, **options: Any) -> None:
        media = options["media"] or database.absolute().parent
        if not media.is_dir():
            raise CommandError(f"There is no folder {media}.")
        report, stopped = Report(), ""
        with audit.running_command():
            try:
                run_import(
                    database,
                    media,
                    owner=named_user(options["owner"]),
                    dry_run=options["dry_run"],
                    report=report,
                )
            except KeyboardInterrupt:
                stopped = "Interrupted. The same command goes on from here."
            except ImageHubError as error:
                stopped = str(error)
            if report.tables and not options["dry_run"]:
                counts = {name: table.imported for name, table in report.tables.items()}
                audit.record("legacy.import", after=counts)
        self._print(report, stopped, **options)
        if stopped:
            raise CommandError(stopped)
        if not report.adds_up:
            raise CommandError("The sums do not match: please report this.")
        if report.refused_rows:
            raise CommandError(f"{report.refused_rows} rows were refused.")

    def _print(self, report: Report, stopped: str, **options: Any) -> None:
        if options["json"]:
            self.stdout.write(
                json.dumps(
                    {
                        "dry_run": options["dry_run"],
                        "stopped": stopped or None,
                        "tables": {name: table.as_json() for name, table in report.tables.items()},
                        "left_alone": report.left_alone,
                        "adds_up": report.adds_up,
                    }
                )
            )
            return
        if options["dry_run"]:
            self.stdout.write("Nothing is written: this is what would be imported.")
        for name, table in report.tables.items():
            self._print_table(name, table)
        for name, rows in report.left_alone.items():
            self.stdout.write(f"{name}: {rows} rows that nothing here imports.")

    def _print_table(self, name: str, table: TableReport) -> None:
        self.stdout.write(
            f"{name}: {table.found} found = {table.imported} imported + {table.already_there} there already"
            f" + {table.refused_rows} refused."
        )
        for note, count in table.notes.items():
            self.stdout.write(f"  {count} \N{MULTIPLICATION SIGN} {note}")
        for row in table.examples[:LINES]:
            self.stdout.write(self.style.WARNING(f"  {row.row}: {row.code}. {row.detail}"))
        if table.refused_rows > LINES:
            self.stdout.write(f"  … and {table.refused_rows - LINES} more: see --json")
