"""How hosts are to be treated: what all crawls, of all workers and machines, have to agree on."""

from django.db import models


class HostRecord(models.Model):
    """The state of one host: when it was asked last, how it answered, until when it is left alone.

    Changed by compare-and-swap on ``version``: see :mod:`scraping.services.shared_store`.
    """

    host = models.CharField(primary_key=True, max_length=255)
    state = models.JSONField(default=dict, help_text="See scraping.politeness.hosts.HostState.")
    version = models.PositiveBigIntegerField(default=0)
    changed_at = models.DateTimeField(auto_now=True, db_index=True)

    def __str__(self) -> str:
        return self.host


class SiteFile(models.Model):
    """A file in which a site says what it allows, as it was fetched last, and who fetches it now."""

    origin = models.CharField(max_length=300, help_text="Scheme, host and port.")
    path = models.CharField(max_length=100)
    status = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Empty: there was no answer.")
    body = models.BinaryField(blank=True, default=b"")
    fetched_at = models.FloatField(null=True, blank=True, help_text="POSIX time. Empty: never.")
    claimed_until = models.FloatField(default=0.0, help_text="POSIX time: until then somebody fetches it.")
    changed_at = models.DateTimeField(auto_now=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(name="sitefile_once", fields=["origin", "path"])]

    def __str__(self) -> str:
        return f"{self.origin}{self.path}"
