"""Who is there: clusters that work, and people who watch."""

from django.db import models
from django.db.models.functions import Now

from imagehub.identifiers import new_id


class WorkerPresence(models.Model):
    """One running cluster. Its workers stamp ``seen_at`` whenever they answer a doorbell or work on a job.

    The stamp comes from the far end of the whole path (message, pusher, worker, database), so a cluster that
    looks alive but takes no messages goes stale too.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    cluster = models.CharField(max_length=20)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField(help_text="The cluster's main process.")
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    facts = models.JSONField(
        default=dict,
        blank=True,
        help_text="What its workers can do, and how they fare: models, caches, device.",
    )

    class Meta:
        indexes = [models.Index(fields=["cluster", "seen_at"], name="jobs_presence_cluster")]

    def __str__(self) -> str:
        return f"{self.cluster} on {self.host}, process {self.pid}"


class Audience(models.Model):
    """Somebody watches a job that runs. What they are shown of it meanwhile goes into this row, and with it."""

    job = models.UUIDField(primary_key=True, editable=False)
    until = models.DateTimeField(
        db_index=True, help_text="Nobody watches any more, unless they say so again."
    )
    token = models.UUIDField(
        null=True, editable=False, help_text="Of the claim that the preview was made under."
    )
    step = models.PositiveIntegerField(null=True, help_text="Of the preview.")
    preview = models.BinaryField(null=True, help_text="A small JPEG of the picture in the making.")

    def __str__(self) -> str:
        return f"audience of {self.job}"
