"""API tokens and the audit trail. Of a token only a digest is stored; what the caller sends is never written down."""

from datetime import datetime
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from imagehub.errors import Conflict
from imagehub.identifiers import new_id

PREFIX_LENGTH = 8


class Scope(models.TextChoices):
    """What a token may be used for. None of them lets it do more than its user may."""

    READ = "read", "Read"
    GENERATE = "generate", "Generate pictures"
    TRAIN = "train", "Train adapters"
    SCRAPE = "scrape", "Scrape pages"
    ADMIN = "admin", "Everything the user may do"


def validate_scopes(value: Any) -> None:
    """Check that there is at least one scope, that all are known, and that none is named twice."""
    names = value if isinstance(value, list) else []
    if not names or any(name not in Scope.values for name in names) or len(set(names)) < len(names):
        raise ValidationError(f"One or more of these, each once: {', '.join(Scope)}.", code="invalid_scopes")


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def usable(self, *, now: datetime) -> Self:
        """Keep the tokens that open the door at a time: not revoked, not expired, of an active user."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None, user__is_active=True)

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-id")


class ApiToken(models.Model):
    """A secret with which a program acts for a user."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, help_text="What it is for.")
    prefix = models.CharField(
        max_length=PREFIX_LENGTH, help_text="How the token begins, to tell it from others."
    )
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the token, in hexadecimal.")
    scopes = models.JSONField(
        default=list, validators=[validate_scopes], help_text="What it may be used for; without any, nothing."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it does not expire.")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="To within a minute.")
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        verbose_name = "API token"
        constraints = [
            models.CheckConstraint(
                name="apitoken_expires_after_creation",
                condition=Q(expires_at=None) | Q(expires_at__gt=F("created_at")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def grants(self, scope: str) -> bool:
        """Tell whether the token may be used for something. Every scope includes reading, `admin` all the others."""
        if scope == Scope.READ:
            return bool(self.scopes)
        return scope in self.scopes or Scope.ADMIN in self.scopes


class AuditIsFinal(Conflict):
    code = "audit_is_final"
    title = "The audit trail is only ever written to"


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    def newest_first(self) -> Self:
        return self.order_by("-at", "-id")


class AuditEntry(models.Model):
    """Who did what to which row, when and from where. Written once (:mod:`imagehub.accounts.audit`), and then final."""

    class Via(models.TextChoices):
        """How somebody came in."""

        SESSION = "session", "Session"
        TOKEN = "token", "API token"
        ADMIN = "admin", "Admin site"
        COMMAND = "command", "Command"
        SYSTEM = "system", "The system itself"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField(default=timezone.now, editable=False)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    actor_name = models.CharField(max_length=150, blank=True, help_text="Kept when the user is deleted.")
    via = models.CharField(max_length=10, choices=Via)
    action = models.CharField(max_length=100, help_text="Such as album.change, token.create or sign_in.")
    target_type = models.CharField(max_length=100, blank=True, help_text="Such as albums.album.")
    target_id = models.CharField(max_length=100, blank=True)
    target_label = models.CharField(max_length=200, blank=True)
    address = models.CharField(max_length=45, blank=True, help_text="Of the client.")
    request_id = models.CharField(max_length=64, blank=True)
    before = models.JSONField(default=dict, blank=True, help_text="The fields that changed, as they were.")
    after = models.JSONField(default=dict, blank=True, help_text="The fields that changed, as they became.")

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(name="audit_newest", fields=["-at", "-id"]),
            models.Index(name="audit_by_actor", fields=["actor_name", "-at", "-id"]),
            models.Index(name="audit_by_action", fields=["action", "-at", "-id"]),
            models.Index(name="audit_by_target", fields=["target_id", "-at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor_name or self.via}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write a new entry.

        Raises:
            AuditIsFinal: it is written already.
        """
        if not self._state.adding:
            raise AuditIsFinal("An entry of the audit trail cannot be changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Refuse.

        Raises:
            AuditIsFinal: always.
        """
        raise AuditIsFinal("An entry of the audit trail cannot be deleted.")
