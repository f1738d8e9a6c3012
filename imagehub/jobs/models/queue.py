"""What is known of queues beside their jobs: whose turn it was, and what is paused."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

if TYPE_CHECKING:
    from imagehub.jobs.models.jobs import Job


class OwnerTurnQuerySet(models.QuerySet["OwnerTurn"]):
    def served_at(self, model: "type[Job]") -> dict[int, datetime]:
        """Return when each owner's jobs of one kind were last taken up."""
        return dict(self.filter(kind=model._meta.label_lower).values_list("owner_id", "served_at"))

    def take(self, model: "type[Job]", owner: int) -> None:
        """Note that an owner is served now."""
        self.bulk_create(
            [OwnerTurn(kind=model._meta.label_lower, owner_id=owner, served_at=Now())],
            update_conflicts=True,
            unique_fields=["kind", "owner"],
            update_fields=["served_at"],
        )


class OwnerTurn(models.Model):
    """When somebody's job of one kind was last taken up, so that nobody's queue starves another's."""

    kind = models.CharField(max_length=100)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    served_at = models.DateTimeField()

    objects = OwnerTurnQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(name="jobs_one_turn_per_owner", fields=["kind", "owner"])]

    def __str__(self) -> str:
        return f"{self.owner_id} in {self.kind} at {self.served_at}"


class QueuePause(models.Model):
    """One kind of job of which no worker takes a new one. What runs goes on to its end."""

    kind = models.CharField(max_length=100, primary_key=True, help_text="As it is registered.")
    reason = models.CharField(max_length=200, blank=True)
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    paused_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.kind
