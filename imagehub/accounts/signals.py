"""What records changes and sign-ins, and what follows when a user is deactivated."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import models
from django.db.models.fields.reverse_related import ManyToManyRel
from django.db.models.signals import m2m_changed, post_save, pre_delete, pre_save
from django.http import HttpRequest

from imagehub.accounts import audit
from imagehub.accounts.models import ApiToken, AuditEntry
from imagehub.jobs.models import QueuePause
from imagehub.jobs.registry import kinds

ALWAYS_RECORDED: frozenset[type[models.Model]] = frozenset({User, Group, ApiToken})
"""Who may do what: recorded whoever changes it, a request, a command or a sign-in."""
NEVER_RECORDED: frozenset[type[models.Model]] = frozenset({AuditEntry, QueuePause})
"""The trail itself, and what its service records."""
NOUNS: dict[type[models.Model], str] = {ApiToken: "token"}


def connect() -> None:
    """Listen to every model of ours, and to Django's users and groups.

    Model by model: a receiver for all of them would also slow down what is deleted by the thousand, such as task
    results.
    """
    for model in recorded_models():
        pre_save.connect(_before_save, sender=model)
        post_save.connect(_after_save, sender=model)
        pre_delete.connect(_before_delete, sender=model)
        for field in model._meta.many_to_many:
            m2m_changed.connect(_members_changed, sender=field.remote_field.through)
    post_save.connect(_stop_jobs_of_deactivated, sender=User)
    user_logged_in.connect(_signed_in)
    user_logged_out.connect(_signed_out)
    user_login_failed.connect(_sign_in_failed)


def recorded_models() -> set[type[models.Model]]:
    """Return the models whose changes are recorded."""
    ours = {
        model
        for model in apps.get_models()
        if model.__module__.partition(".")[0] in settings.OWN_PACKAGES and not model._meta.proxy
    }
    return (ours | ALWAYS_RECORDED) - NEVER_RECORDED


def _is_recorded(model: type[models.Model]) -> bool:
    return model in ALWAYS_RECORDED or audit.is_change_by_user()


def _action(row: models.Model, verb: str) -> str:
    return f"{NOUNS.get(type(row), row._meta.model_name)}.{verb}"


def _before_save(sender: type[models.Model], instance: models.Model, **_: Any) -> None:
    instance.__dict__.pop("_audited_before", None)
    if instance._state.adding or not _is_recorded(sender):
        return
    stored = sender._base_manager.filter(pk=instance.pk).first()
    if stored is not None:
        instance.__dict__["_audited_before"] = audit.values_of(stored)


def _after_save(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,  # noqa: FBT001 - as Django calls it
    raw: bool,  # noqa: FBT001
    update_fields: frozenset[str] | None,
    **_: Any,
) -> None:
    before = instance.__dict__.pop("_audited_before", {})
    if raw or not _is_recorded(sender):
        return
    after = {
        name: value
        for name, value in audit.values_of(instance).items()
        if update_fields is None or name in update_fields or created
    }
    if created:
        audit.record(_action(instance, "create"), instance, after=after)
        return
    changed = [name for name in after if name not in before or before[name] != after[name]]
    if changed:
        audit.record(
            _action(instance, "change"),
            instance,
            before={name: before[name] for name in changed if name in before},
            after={name: after[name] for name in changed},
        )


def _before_delete(sender: type[models.Model], instance: models.Model, origin: Any = None, **_: Any) -> None:
    # What goes along with a row that is deleted needs no entry of its own.
    is_meant = origin is instance or getattr(origin, "model", None) is sender
    if is_meant and _is_recorded(sender):
        audit.record(_action(instance, "delete"), instance, before=audit.values_of(instance))


def _members_changed(sender: type[models.Model], instance: models.Model, action: str, **_: Any) -> None:
    """Record who or what belongs to a row: the groups of a user, the permissions of a group."""
    if not _is_recorded(type(instance)):
        return
    name = _relation(sender, instance)
    members = sorted(audit.label_of(member) for member in getattr(instance, name).all())
    if action.startswith("pre_"):
        instance.__dict__[f"_audited_{name}"] = members
        return
    before = instance.__dict__.pop(f"_audited_{name}", [])
    if before != members:
        audit.record(_action(instance, "change"), instance, before={name: before}, after={name: members})


def _relation(through: type[models.Model], row: models.Model) -> str:
    """Return the attribute by which a row reaches what it is related to."""
    for field in row._meta.many_to_many:
        if field.remote_field.through is through:
            return field.name
    return next(
        relation.get_accessor_name() or ""
        for relation in row._meta.related_objects
        if isinstance(relation, ManyToManyRel) and relation.through is through
    )


def _stop_jobs_of_deactivated(sender: type[User], instance: User, **_: Any) -> None:
    """Cancel what a deactivated user has asked for. Sessions and tokens are refused by themselves."""
    if instance.is_active:
        return
    cancelled = {
        kind.name: count
        for kind in kinds()
        if (count := kind.model._default_manager.filter(owner=instance).request_cancel())
    }
    if cancelled:
        audit.record("user.cancel_jobs", instance, after=cancelled)


def _signed_in(sender: Any, request: HttpRequest | None, user: User, **_: Any) -> None:
    audit.record("sign_in", user, actor=audit.actor_of(request, user))


def _signed_out(sender: Any, request: HttpRequest | None, user: User | None, **_: Any) -> None:
    if user is not None:
        audit.record("sign_out", user, actor=audit.actor_of(request, user))


def _sign_in_failed(
    sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any
) -> None:
    """Note whose account was tried. A name that nobody has may be a password typed into the wrong field."""
    name = str(credentials.get(User.USERNAME_FIELD) or credentials.get("email") or "")
    user = User.objects.filter(**{User.USERNAME_FIELD: name}).first() if name.isprintable() else None
    audit.record(
        "sign_in_failed",
        user,
        actor=audit.actor_of(request),
        after={} if user else {"credentials": name},
    )
