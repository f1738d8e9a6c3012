from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from imagehub.jobs.reaper import reap
from imagehub.jobs.registry import kinds


class Command(BaseCommand):
    help = "Take jobs from workers that were lost, and ring for queued jobs that nobody was told about."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and do nothing.")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        if dry_run:
            for kind in kinds():
                jobs = kind.model._default_manager
                self.stdout.write(
                    f"{kind.name}: {jobs.expired().count()} lost, {jobs.queued().count()} queued"
                )
            return
        self.stdout.write(self.style.SUCCESS(f"Took {reap()} jobs from lost workers."))
