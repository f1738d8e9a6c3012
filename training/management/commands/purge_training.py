import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from imagehub.accounts import audit
from imagehub.errors import Invalid
from training.models import Purge
from training.services import purging


class Command(BaseCommand):
    help = (
        "Delete the files of training runs that ended some time ago: pictures, checkpoints, samples, logs, and what nobody "
        "used of the cache. Checkpoints stay that are pinned, the best of their run, or about to become an adapter."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=int,
            metavar="DAYS",
            help="Of runs that ended so long ago (default: training.retention_days of the configuration).",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would be deleted, and delete nothing."
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")

    def handle(self, *, older_than: int | None, dry_run: bool, as_json: bool, **options: Any) -> None:
        if older_than is not None and older_than < 0:
            raise CommandError("--older-than is 0 or more.")
        try:
            with audit.running_command():
                purge = purging.purge_now(older_than_days=older_than, is_dry_run=dry_run)
        except Invalid as error:
            raise CommandError(f"{error} Use --older-than.") from error
        if as_json:
            told = {"older_than_days": purge.older_than_days, "dry_run": dry_run} | purge.result
            self.stdout.write(json.dumps(told))
        if purge.state == Purge.State.FAILED:
            raise CommandError(f"{purge.result['problem']}.")
        if not as_json:
            self._tell(purge.result, is_done=not dry_run)

    def _tell(self, result: dict[str, Any], *, is_done: bool) -> None:
        for kept in result["kept"]:
            steps = ", ".join(map(str, kept["steps"]))
            self.stdout.write(f"{kept['run']}  keeps the checkpoints of step {steps}")
        counts = f"{result['runs']} runs, {result['checkpoints']} checkpoints, {result['cached_files']} cached files"
        verb = "Deleted" if is_done else "Would delete"
        self.stdout.write(self.style.SUCCESS(f"{verb} {counts} ({filesizeformat(result['bytes'])})."))
