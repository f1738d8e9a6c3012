"""Who is staff because ``IMAGEHUB_STAFF_EMAILS`` says so.

Membership of one group remembers it: whoever is in it became staff by the list, and stops being staff when the list no
longer has the address. Staff named by hand in the admin, and superusers, are never touched.
"""

import logging
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.signals import request_started
from django.db import DatabaseError, transaction

logger = logging.getLogger(__name__)

GROUP = "Staff by e-mail list"

_has_warned = False
"""One line for a database that is away is enough."""


def apply_to(user: User, email: str) -> None:
    """Make staff of a user whose verified address is on the list, or undo it."""
    if user.is_superuser:
        return
    is_listed = email.lower() in settings.STAFF_EMAILS
    if is_listed and not user.is_staff:
        group, _ = Group.objects.get_or_create(name=GROUP)
        with transaction.atomic():
            user.groups.add(group)
            _set_staff(user, is_staff=True)
    elif not is_listed:
        _withdraw(user)


def withdraw_from_unlisted() -> None:
    """Take the rights back from everybody whose address has left the list since they signed in."""
    for user in User.objects.filter(groups__name=GROUP):
        accounts = SocialAccount.objects.filter(user=user, provider="google")
        emails = {
            str(account.extra_data.get("email", "")).lower()
            for account in accounts
            if account.extra_data.get("email_verified")
        }
        if not user.is_superuser and not emails & settings.STAFF_EMAILS:
            _withdraw(user)


def withdraw_before_first_request() -> None:
    """Have a web process do this before it answers for the first time: the list is read when it starts."""
    request_started.connect(_first_request, dispatch_uid=__name__)


def _first_request(**_: Any) -> None:
    global _has_warned
    try:
        withdraw_from_unlisted()
    except DatabaseError:
        if not _has_warned:
            logger.warning(
                "The list of staff could not be applied; each request tries again until it can be."
            )
            _has_warned = True
        return
    request_started.disconnect(dispatch_uid=__name__)


def _withdraw(user: User) -> None:
    group = user.groups.filter(name=GROUP).first()
    if group is None:
        return
    with transaction.atomic():
        user.groups.remove(group)
        _set_staff(user, is_staff=False)


def _set_staff(user: User, *, is_staff: bool) -> None:
    user.is_staff = is_staff
    user.save(update_fields=["is_staff"])
