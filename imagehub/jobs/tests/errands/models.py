from django.db import models

from imagehub.jobs.models import Job


class Errand(Job):
    """A job that waits, or misbehaves, and then leaves an effect."""

    seconds = models.FloatField(default=0.0)
    behaviour = models.CharField(max_length=20, default="good")


class Effect(models.Model):
    """What an errand leaves behind. No constraint keeps a second one out: the fence must."""

    errand = models.ForeignKey(Errand, on_delete=models.CASCADE, related_name="effects")
    pid = models.PositiveIntegerField()

    def __str__(self):
        return f"effect of {self.errand_id}"
