from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from imagehub.accounts import audit
from imagehub.errors import ImageHubError
from imagehub.operations import backups


class Command(BaseCommand):
    help = (
        "Put a backup back, or see whether it is sound. Stop the services first, and run migrate afterwards."
    )
    requires_system_checks = ()  # they may ask the database, which is empty
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("snapshot", metavar="DIR", type=Path, help="The folder of one backup.")
        parser.add_argument(
            "--roots",
            nargs="*",
            choices=backups.ROOTS,
            default=list(backups.ROOTS),
            help="Which files (default: all).",
        )
        parser.add_argument(
            "--force", action="store_true", help="Also where the database has tables: all of them go."
        )
        parser.add_argument(
            "--keep-sessions",
            action="store_true",
            help="Whoever was signed in at the time of the backup is so again.",
        )
        parser.add_argument(
            "--check", action="store_true", help="Compare the backup with its checksums, and change nothing."
        )

    def handle(
        self,
        *,
        snapshot: Path,
        roots: list[Any],
        force: bool,
        keep_sessions: bool,
        check: bool,
        **options: Any,
    ) -> None:
        snapshot = snapshot.absolute()
        try:
            if check:
                checked = backups.check(snapshot)
                self.stdout.write(self.style.SUCCESS(f"Sound: the database and {checked.files} files."))
                return
            with audit.running_command():
                restored = backups.restore(snapshot, roots=roots, force=force, keep_sessions=keep_sessions)
        except ImageHubError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup could not be put back: {error.strerror}.") from error
        if restored.kept_config:
            self.stderr.write(
                "The configuration file that is there differs from that of the backup. It stays."
            )
        if restored.other_key:
            self.stderr.write(
                "IMAGEHUB_SECRET_KEY is another than at the time: everybody has to sign in again."
            )
        if restored.sessions_ended:
            self.stderr.write(
                f"{restored.sessions_ended} sessions were ended: their users have to sign in again."
            )
        self.stderr.write(
            "API tokens, staff rights and deactivated users are again what they were at the time: review them. "
            "So is all that purges delete by the clock: set purges.dry_run before starting, to keep what is to be rescued."
        )
        self.stdout.write(
            self.style.SUCCESS(
                f"Restored the database and {restored.files} files ({restored.written} were not there). Now run: manage.py migrate"
            )
        )
