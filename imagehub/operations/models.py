"""What was deleted of old things, how full the disks were, what operators are told, and what all jobs have come to."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from imagehub.identifiers import new_id


class Purge(models.Model):
    """One clearing out of what ended some time ago: what was asked for, and what came of it."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        WORKING = "working", "Under way"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    class Origin(models.TextChoices):
        PERSON = "person", "A person"
        CLOCK = "clock", "The clock"
        COMMAND = "command", "A command"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(max_length=40, help_text="Of what: see imagehub.operations.purges.")
    origin = models.CharField(max_length=10, choices=Origin, help_text="Who wanted it.")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    older_than_days = models.PositiveIntegerField()
    limit = models.PositiveIntegerField(null=True, blank=True, help_text="So many at most. Empty: all.")
    is_dry_run = models.BooleanField(
        default=False, help_text="Says what would be deleted, and deletes nothing."
    )
    due_on = models.DateField(
        null=True, blank=True, editable=False, help_text="The day whose purge by the clock it is."
    )
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    token = models.UUIDField(null=True, editable=False, help_text="Whoever does it knows it.")
    result = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    worked_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When its worker last got on with it."
    )
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        indexes = [models.Index(fields=["-created_at", "-id"], name="operations_purge_newest")]
        constraints = [
            # The clock may strike on several machines, or twice.
            models.UniqueConstraint(name="operations_purge_once_a_day", fields=["kind", "due_on"]),
            models.CheckConstraint(
                name="operations_purge_state_known",
                condition=Q(state__in=["waiting", "working", "done", "failed"]),
            ),
            models.CheckConstraint(
                name="operations_purge_origin_known", condition=Q(origin__in=["person", "clock", "command"])
            ),
        ]

    def __str__(self) -> str:
        return f"purge of {self.kind}, {self.created_at:%Y-%m-%d %H:%M}"


class DiskSnapshot(models.Model):
    """How full the disks of one machine were, and with what."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    host = models.CharField(max_length=200)
    taken_at = models.DateTimeField(default=timezone.now, editable=False)
    seconds = models.FloatField(help_text="How long it took to look.")
    filesystems = models.JSONField(help_text="See imagehub.operations.filesystems.FileSystem.")
    usage = models.JSONField(help_text="Of each root and kind of files: bytes and files.")

    class Meta:
        indexes = [models.Index(fields=["-taken_at", "-id"], name="operations_disk_newest")]

    def __str__(self) -> str:
        return f"disks of {self.host}, {self.taken_at:%Y-%m-%d %H:%M}"


class DiskAlert(models.Model):
    """A file system was found too full, and perhaps later no longer so."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    host = models.CharField(max_length=200)
    filesystem = models.CharField(max_length=500, help_text="As in the snapshots.")
    roots = models.JSONField(default=list, help_text="Which of ours lie on it.")
    percent_used = models.FloatField(help_text="When it was raised.")
    threshold_percent = models.FloatField()
    raised_at = models.DateTimeField(default=timezone.now, editable=False)
    cleared_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="operations_alert_once_a_crossing",
                fields=["host", "filesystem"],
                condition=Q(cleared_at=None),
            )
        ]
        indexes = [models.Index(fields=["-raised_at", "-id"], name="operations_alert_newest")]

    def __str__(self) -> str:
        return f"{self.filesystem} of {self.host} at {self.percent_used:.0f} %"


class Notice(models.Model):
    """Something that operators are told in one way: see ``imagehub.operations.notify``."""

    class Channel(models.TextChoices):
        WEBHOOK = "webhook", "Webhook"
        EMAIL = "email", "E-mail"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    channel = models.CharField(max_length=10, choices=Channel)
    name = models.CharField(max_length=60, help_text="Of the kind of alert.")
    sentence = models.CharField(max_length=500)
    facts = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    tries = models.PositiveSmallIntegerField(default=0, editable=False)
    next_try_at = models.DateTimeField(default=timezone.now, editable=False)
    sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    failure = models.CharField(
        max_length=60, blank=True, editable=False, help_text="Why it has not arrived, in a word."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="operations_notice_channel_known", condition=Q(channel__in=["webhook", "email"])
            )
        ]
        indexes = [
            models.Index(
                fields=["created_at", "id"], condition=Q(sent_at=None), name="operations_notice_waiting"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} by {self.channel}, {self.created_at:%Y-%m-%d %H:%M}"


class TallyMark(models.Model):
    """Before when the jobs of one kind that ended have been counted."""

    kind = models.CharField(max_length=100, primary_key=True, help_text="As it is registered.")
    until = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.kind} until {self.until:%Y-%m-%d %H:%M}"


class Tally(models.Model):
    """How much of something there has been since counting began: see ``imagehub.operations.tallies``. It only grows."""

    kind = models.CharField(max_length=100)
    measure = models.CharField(max_length=30)
    label = models.CharField(max_length=50, blank=True)
    bucket = models.CharField(max_length=20, blank=True, help_text="Of a histogram: its bound, or `sum`.")
    value = models.FloatField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="operations_tally_once", fields=["kind", "measure", "label", "bucket"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.measure} {self.label} of {self.kind}"
