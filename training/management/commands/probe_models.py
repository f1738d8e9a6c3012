from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from imagehub.accounts import audit
from training.models import BaseModel
from training.services import probe_base_model


class Command(BaseCommand):
    help = (
        "Look at the files of base models, without loading them, and note what they are and what is wrong with them. "
        "Exits with 1 if something is wrong with one that is enabled."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="Which ones (default: all).")

    def handle(self, *, names: list[str], **options: Any) -> None:
        models = BaseModel.objects.order_by("name")
        if names:
            models = models.filter(name__in=names)
            if unknown := set(names) - set(models.values_list("name", flat=True)):
                raise CommandError(f"There is no base model {', '.join(sorted(unknown))}.")
        broken = 0
        with audit.running_command():
            for model in models:
                probe_base_model(model)
                broken += bool(model.problem and model.is_enabled)
                told = (
                    model.problem
                    or f"{model.get_architecture_display() or 'not looked at'} {model.pipeline}".rstrip()
                )
                self.stdout.write(f"{model.name}: {told}")
        if broken:
            raise CommandError(f"{broken} enabled base models cannot be used.", returncode=1)
