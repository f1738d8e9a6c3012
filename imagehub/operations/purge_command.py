"""What the commands that clear something out have in common."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from imagehub.accounts import audit
from imagehub.errors import Invalid
from imagehub.operations import purges
from imagehub.operations.models import Purge


class PurgeCommand(BaseCommand):
    """Clears out what is old of one kind, at once, and leaves a record. Exits with 1 where not all could be deleted."""

    kind = ""

    def add_arguments(self, parser: CommandParser) -> None:
        kind = purges.get_kind(self.kind)
        parser.add_argument(
            "--older-than",
            type=int,
            metavar="DAYS",
            help=f"Of {kind.things} that {kind.ended} so long ago (default: {kind.setting} of the configuration).",
        )
        parser.add_argument("--limit", type=int, metavar="N", help=f"Of so many {kind.things} at most.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would be deleted, and delete nothing."
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")

    def handle(
        self, *, older_than: int | None, limit: int | None, dry_run: bool, as_json: bool, **options: Any
    ) -> None:
        if older_than is not None and not 0 <= older_than <= purges.MOST_DAYS:
            raise CommandError(f"--older-than is 0 to {purges.MOST_DAYS}.")
        if limit is not None and not 1 <= limit <= purges.GREATEST_LIMIT:
            raise CommandError(f"--limit is 1 to {purges.GREATEST_LIMIT}.")
        try:
            with audit.running_command():
                purge = purges.purge_now(
                    self.kind, older_than_days=older_than, limit=limit, is_dry_run=dry_run
                )
        except Invalid as error:
            raise CommandError(f"{error} Use --older-than.") from error
        if as_json:
            self.stdout.write(json.dumps(self._record(purge)))
        for error in purge.result.get("errors", ()):
            self.stderr.write(error)
        if purge.state == Purge.State.FAILED:
            raise CommandError(f"{purge.result['problem']}.")
        if not as_json:
            self.tell(purge)

    def tell(self, purge: Purge) -> None:
        """Say for people what came of it."""
        verb = "Would delete" if purge.is_dry_run else "Deleted"
        self.stdout.write(self.style.SUCCESS(f"{verb} {purges.told(purge)}."))

    @staticmethod
    def _record(purge: Purge) -> dict[str, Any]:
        return {
            "purge": str(purge.pk),
            "kind": purge.kind,
            "state": purge.state,
            "older_than_days": purge.older_than_days,
            "limit": purge.limit,
            "dry_run": purge.is_dry_run,
        } | purge.result
