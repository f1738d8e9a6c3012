from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from generation.demo import Demo, DemoFailed


class Command(BaseCommand):
    help = "Start everything on this machine and make a themed set of pictures with the starter model."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="Port of the web server (default: 8000).")
        parser.add_argument(
            "--once", action="store_true", help="Stop when the pictures are there, instead of serving on."
        )

    def handle(self, *, port: int, once: bool, **options: Any) -> None:
        demo = Demo(port=port, say=self.stdout.write)
        try:
            demo.run(keep_serving=not once)
        except DemoFailed as error:
            raise CommandError(str(error)) from error
