"""Jobs that have a model look at pictures and say what it sees."""

from django.db import models
from django.db.models import Q

from albums.models import Image
from imagehub.jobs.models import Job


class LabelingJob(Job):
    """Captions, tags or a judgement for some pictures."""

    class Task(models.TextChoices):
        CAPTION = "caption", "Captions"
        TAG = "tag", "Tags"
        NSFW = "nsfw", "Fit for everybody?"

    task = models.CharField(max_length=10, choices=Task)
    model = models.CharField(max_length=300, help_text="As the configuration names it.")
    overwrite = models.BooleanField(
        default=False, help_text="Also where a person has said something already."
    )
    total = models.PositiveIntegerField(help_text="How many pictures it has.")

    class Meta(Job.Meta):
        pass


class LabelingItem(models.Model):
    """One picture of a labeling job."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        LABELED = "labeled", "Labeled"
        KEPT = "kept", "Left as people said"
        FAILED = "failed", "Failed"

    job = models.ForeignKey(LabelingJob, on_delete=models.CASCADE, related_name="items", db_index=False)
    position = models.PositiveIntegerField()
    image = models.ForeignKey(Image, null=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    detail = models.CharField(max_length=200, blank=True, help_text="Why it failed.")
    confidence = models.FloatField(
        null=True, blank=True, help_text="0 to 1: how sure the model is; for NSFW, how unfit the picture."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(name="labelingitem_once", fields=["job", "position"]),
            models.CheckConstraint(
                name="labelingitem_state_known",
                condition=Q(state__in=["waiting", "labeled", "kept", "failed"]),
            ),
        ]
        indexes = [models.Index(name="labelingitem_by_state", fields=["job", "state", "position"])]

    def __str__(self) -> str:
        return f"{self.position} of {self.job_id}"
