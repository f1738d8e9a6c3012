from argparse import ArgumentParser, Namespace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from training.starter.cli import OutputNeeded, add_options, run
from training.starter.publishing import ModelTooLarge, NoModel
from training.starter.trainer import OtherRecipe


class Command(BaseCommand):
    help = (
        "Draw pictures and train the starter model on them again, from a seed, or measure the one there is."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_options(parser)
        parser.set_defaults(work_dir=settings.VAR_DIR / "starter")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            meets_bar = run(Namespace(**options), self._write)
        except (ModelTooLarge, NoModel, OtherRecipe, OutputNeeded) as refusal:
            raise CommandError(str(refusal)) from refusal
        if not meets_bar and not options["quick"]:
            raise CommandError("The model does not meet the quality bar: colors 98 %, shape 95 %.")

    def _write(self, line: str) -> None:
        self.stdout.write(line)
        # Training takes an hour: its progress must not wait in the buffer of a pipe.
        self.stdout.flush()
