"""The audit trail: who changed what, when, from where, and how it was before.

It is complete by construction: while a user's request is being answered, every row that is saved or deleted is
recorded by signals. Users, groups and tokens are recorded whoever changes them. What signals do not see, a
``QuerySet.update``, calls :func:`record` beside it. An entry is written where the change is, so whoever changes rows
opens a transaction, and both are there or neither.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.http import HttpRequest

from imagehub.accounts.models import ApiToken, AuditEntry
from imagehub.client_address import client_address
from imagehub.context import request_id
from imagehub.redaction import is_sensitive_field

Via = AuditEntry.Via

LONGEST_VALUE = 1000
"""Characters of a value, as JSON, that are kept; of a longer one only its length and hash are."""
HASH_LENGTH = 16
SAYS_NOTHING = frozenset({"last_login", "last_used_at", "updated_at"})
"""Fields that change by themselves. Signing in has an entry of its own."""
ADMIN_PATH = "/admin/"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_request: ContextVar[HttpRequest | None] = ContextVar("audited_request", default=None)
_command: ContextVar[bool] = ContextVar("audited_command", default=False)


@dataclass(frozen=True)
class Actor:
    """Somebody who does something. Without a user it is nobody who is known here, or the system."""

    user: User | None
    via: Via
    address: str = ""

    @property
    def name(self) -> str:
        return self.user.get_username() if self.user else ""


@contextmanager
def answering(request: HttpRequest) -> Iterator[None]:
    """Know whose changes these are. Who it is may turn out only later, when the view has authenticated the request."""
    before = _request.set(request)
    try:
        yield
    finally:
        _request.reset(before)


@contextmanager
def running_command() -> Iterator[None]:
    """Say that what follows was asked for on the command line."""
    before = _command.set(True)
    try:
        yield
    finally:
        _command.reset(before)


def current_actor() -> Actor:
    """Return who is at work: the caller of the request that is being answered, a command, or the system."""
    request = _request.get()
    if request is None:
        return Actor(None, Via.COMMAND if _command.get() else Via.SYSTEM)
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return Actor(None, Via.SYSTEM, client_address(request))
    return Actor(user, _way_in(request), client_address(request))


def actor_of(request: HttpRequest | None, user: User | None = None) -> Actor:
    """Return who signs in, out, or fails to: the request does not know them yet, or no longer."""
    if request is None:
        return Actor(user, Via.SYSTEM)
    return Actor(user, _way_in(request), client_address(request))


def is_change_by_user() -> bool:
    """Tell whether a signed-in user has asked for what happens now, and asked to change something."""
    request = _request.get()
    return request is not None and request.method not in SAFE_METHODS and current_actor().user is not None


def record(
    action: str,
    target: models.Model | None = None,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    actor: Actor | None = None,
    target_label: str = "",
) -> AuditEntry:
    """Write an entry. Prompts, captions and secrets among the values are replaced by their length and hash.

    Call it in the transaction of the change, after the change.
    """
    entry = _entry(action, target, before, after, actor or current_actor(), target_label)
    entry.save(force_insert=True)
    return entry


def record_created(rows: Sequence[models.Model]) -> None:
    """Write what the signals would have written of rows that ``bulk_create`` made, by one query for all."""
    if not is_change_by_user():
        return
    actor = current_actor()
    AuditEntry.objects.bulk_create(
        _entry(f"{row._meta.model_name}.create", row, None, values_of(row), actor) for row in rows
    )


def values_of(row: models.Model) -> dict[str, Any]:
    """Return the columns of a row that say something."""
    return {
        field.name: field.value_from_object(row)
        for field in row._meta.concrete_fields
        if field.name not in SAYS_NOTHING
    }


def _entry(
    action: str,
    target: models.Model | None,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    actor: Actor,
    target_label: str = "",
) -> AuditEntry:
    return AuditEntry(
        actor=actor.user,
        actor_name=actor.name[:150],
        via=actor.via,
        action=action,
        target_type=target._meta.label_lower if target else "",
        target_id=str(target.pk) if target else "",
        target_label=(target_label or (label_of(target) if target else ""))[:200],
        address=actor.address,
        request_id=request_id.get(),
        before=presentable(before or {}),
        after=presentable(after or {}),
    )


def presentable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON that anybody among staff may read, for good."""
    plain = json.loads(json.dumps(dict(values), cls=DjangoJSONEncoder, default=str))
    return {name: _short(_without_sensitive(name, value)) for name, value in plain.items()}


def label_of(row: models.Model) -> str:
    """Return what a row calls itself, unless it calls itself by something sensitive."""
    label = str(row)
    for field in row._meta.concrete_fields:
        value = field.value_from_object(row) if is_sensitive_field(field.name) else ""
        if isinstance(value, str) and value and (value in label or label.rstrip("…") in value):
            return f"{row._meta.verbose_name} {row.pk}"
    return label


def _way_in(request: HttpRequest) -> Via:
    if isinstance(getattr(request, "auth", None), ApiToken):
        return Via.TOKEN
    return Via.ADMIN if request.path_info.startswith(ADMIN_PATH) else Via.SESSION


def _without_sensitive(name: str, value: Any) -> Any:
    if value in (None, "", [], {}) or isinstance(value, bool | int | float):
        return value
    if is_sensitive_field(name):
        return _digest(value)
    if isinstance(value, dict):
        return {inner: _without_sensitive(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [_without_sensitive(name, item) for item in value]
    if isinstance(value, str):  # an entry that cannot be stored or read would be worse than a character lost
        return value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


def _short(value: Any) -> Any:
    return _digest(value) if len(json.dumps(value)) > LONGEST_VALUE else value


def _digest(value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return {"length": len(text), "sha256": digest[:HASH_LENGTH]}
