"""Users as they are named on the command line."""

from django.contrib.auth.models import User
from django.core.management.base import CommandError

from imagehub.accounts.services import users_called


def named_user(name: str | None) -> User | None:
    """Return who is named, by user name or e-mail address; nobody, if nobody is.

    Raises:
        CommandError: there is no such user, or there are several.
    """
    if not name:
        return None
    found = users_called(name)
    if len(found) != 1:
        raise CommandError(f"There is no user {name}." if not found else f"Several users are called {name}.")
    return found[0]
