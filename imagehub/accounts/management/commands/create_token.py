import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from imagehub.accounts import audit, services
from imagehub.accounts.models import Scope
from imagehub.errors import ImageHubError

MAX_DAYS = 3650


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {MAX_DAYS}")
    return int(text)


class Command(BaseCommand):
    help = "Create or find a user, and print one API token for it: alone on the last line, and never again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--email", required=True, metavar="ADDRESS", help="Who the token acts for.")
        parser.add_argument("--staff", action="store_true", help="Make staff of the user.")
        parser.add_argument(
            "--days", type=_days, metavar="N", help="Days until it expires (default: it does not expire)."
        )
        parser.add_argument("--name", default="create_token", help="What it is for.")
        parser.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            metavar="SCOPE",
            help=f"What it may be used for: {', '.join(Scope.values)}. May be given several times (default: admin).",
        )

    def handle(
        self, *, email: str, staff: bool, days: int | None, name: str, scope: list[str] | None, **options: Any
    ) -> None:
        expires_at = timezone.now() + timedelta(days=days) if days else None
        if not 1 <= len(name) <= 100:
            raise CommandError("The name has 1 to 100 characters.")
        try:
            with audit.running_command():
                user, is_new = services.find_or_create_user(email, is_staff=staff)
                token, secret = services.create_token(
                    user,
                    name=name,
                    expires_at=expires_at,
                    scopes=[Scope(word) for word in scope or ["admin"]],
                )
        except ImageHubError as error:
            raise CommandError(str(error)) from error
        role = "staff" if user.is_staff else "not staff"
        until = f"until {token.expires_at:%Y-%m-%d %H:%M} UTC" if token.expires_at else "until it is revoked"
        self.stderr.write(f"{'Created' if is_new else 'Found'} the user {user.get_username()} ({role}).")
        self.stderr.write(f"The token is good {until}. Send it as: Authorization: Bearer TOKEN")
        self.stdout.write(secret)
