"""What the commands that look for weights have in common: how they tell what became of each file."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from imagehub.accounts import audit
from training.services import Outcome
from training.services.scanning import REFUSED, UNCHANGED, VANISHED


class ScanCommand(BaseCommand):
    """Prints a line for each file that is not as it was, and the counts."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")

    def handle(self, *, dry_run: bool, as_json: bool, **options: Any) -> None:
        outcomes: list[Outcome] = []
        with audit.running_command():
            for outcome in self.scan(dry_run=dry_run):
                outcomes.append(outcome)
                if not as_json:
                    self._print(outcome)
        counts = Counter(outcome.outcome for outcome in outcomes)
        if as_json:
            files = [asdict(outcome) for outcome in outcomes]
            self.stdout.write(json.dumps({"dry_run": dry_run, "counts": counts, "files": files}))
        else:
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
            self.stdout.write(f"{told or 'Nothing found'}.{' Nothing was changed.' if dry_run else ''}")
        if counts[REFUSED]:
            raise CommandError(f"{counts[REFUSED]} files were refused.", returncode=1)

    def scan(self, *, dry_run: bool) -> Iterator[Outcome]:
        """Look, and yield what becomes of each file."""
        raise NotImplementedError

    def _print(self, outcome: Outcome) -> None:
        if outcome.outcome == UNCHANGED and not outcome.detail:
            return
        line = f"{outcome.outcome:>9}  {outcome.path}  {outcome.detail}".rstrip()
        self.stdout.write(self.style.WARNING(line) if outcome.outcome in {REFUSED, VANISHED} else line)
