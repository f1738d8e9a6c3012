"""Creating, finding and revoking API tokens, and the users they act for."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from imagehub.accounts import audit
from imagehub.accounts.models import PREFIX_LENGTH, ApiToken, Scope
from imagehub.errors import Conflict, Invalid

TOKEN_START = "ih_"  # noqa: S105 - what every token begins with, so that scanners can find lost ones
TOKEN_BYTES = 32
USE_NOTED_EVERY = timedelta(minutes=1)
MOST_TOKENS = 100
"""How many usable tokens a user may have: enough for anybody, and nobody fills the table."""


class AmbiguousUser(Conflict):
    code = "ambiguous_user"
    title = "Several users have this e-mail address"


class TooManyTokens(Conflict):
    code = "too_many_tokens"
    title = "The user has too many API tokens"


class UserDeactivated(Conflict):
    code = "user_deactivated"
    title = "The user is deactivated"


def find_or_create_user(email: str, *, is_staff: bool = False) -> tuple[User, bool]:
    """Return the user with an e-mail address, and whether it is new. A new one cannot sign in by password.

    ``is_staff`` makes staff of the user; it never takes that away.

    Raises:
        Invalid: it is no e-mail address.
        AmbiguousUser: it does not tell which user is meant.
        UserDeactivated: a token of this user would be refused.
    """
    user, is_new = _user_of(_checked_email(email))
    if not user.is_active:
        raise UserDeactivated(f"{user.get_username()} is deactivated.")
    if is_staff and not user.is_staff:
        user.is_staff = True
        with transaction.atomic():
            user.save(update_fields=["is_staff"])
    return user, is_new


def create_token(
    user: User, *, name: str, expires_at: datetime | None, scopes: Sequence[Scope] = (Scope.ADMIN,)
) -> tuple[ApiToken, str]:
    """Return a new token of a user, and its secret, which cannot be had again.

    Raises:
        Invalid: it would have expired already.
        TooManyTokens: the user has as many as one may.
        ValidationError: it would have no scope, or one that does not exist.
    """
    now = timezone.now()
    if expires_at is not None and expires_at <= now:
        raise Invalid("The time of expiry lies in the past.", pointer="/expires_at")
    secret = TOKEN_START + secrets.token_urlsafe(TOKEN_BYTES)
    token = ApiToken(
        user=user,
        name=name,
        prefix=secret[:PREFIX_LENGTH],
        digest=_digest(secret),
        scopes=[scope.value for scope in Scope if scope in scopes],
        expires_at=expires_at,
    )
    token.clean_fields(exclude=["user"])
    with transaction.atomic():
        if ApiToken.objects.usable(now=now).filter(user=user).count() >= MOST_TOKENS:
            raise TooManyTokens(f"A user has at most {MOST_TOKENS} tokens. Revoke one that is not needed.")
        token.save(force_insert=True)
    return token, secret


def find_token(secret: str, now: datetime) -> ApiToken | None:
    """Return the usable token with this secret, with its user."""
    return ApiToken.objects.usable(now=now).select_related("user").filter(digest=_digest(secret)).first()


def note_use(token: ApiToken, now: datetime) -> None:
    """Remember when a token was used. Writes once a minute at most, however many requests there are."""
    due = now - USE_NOTED_EVERY
    if token.last_used_at is not None and token.last_used_at > due:
        return
    not_noted_yet = Q(last_used_at=None) | Q(last_used_at__lte=due)
    ApiToken.objects.filter(not_noted_yet, pk=token.pk).update(last_used_at=now)


def revoke_token(token: ApiToken) -> bool:
    """Make a token useless from now on; tell whether it was still in force."""
    now = timezone.now()
    with transaction.atomic():
        if not ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now):
            return False
        audit.record("token.revoke", token, before={"revoked_at": None}, after={"revoked_at": now})
    token.revoked_at = now
    return True


def _digest(secret: str) -> str:
    # A fast digest is enough: the secret has 256 random bits, so there is no guessing it.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _checked_email(email: str) -> str:
    email = email.strip()
    email = email.lower() if email.isascii() else email
    max_length = User._meta.get_field("username").max_length or 0
    try:
        if not email.isascii():  # letters that become others in lower case would lead to another's account
            raise ValidationError("not ASCII")
        validate_email(email)
    except ValidationError as error:
        raise Invalid("This is not an e-mail address.", pointer="/email") from error
    if len(email) > max_length:
        raise Invalid(f"An address here has at most {max_length} characters.", pointer="/email")
    return email


def users_called(name: str) -> list[User]:
    """Return the users of a name or e-mail address: none, one, or the first two of too many."""
    return list(User.objects.filter(Q(username=name) | Q(email__iexact=name)).order_by("pk")[:2])


def _user_of(email: str) -> tuple[User, bool]:
    found = users_called(email)
    if len(found) > 1:
        raise AmbiguousUser("Several users have this e-mail address.")
    if found:
        return found[0], False
    # An empty password would be "never set"; this one is "none": no password signs in.
    return User.objects.get_or_create(
        username=email, defaults={"email": email, "password": make_password(None)}
    )
