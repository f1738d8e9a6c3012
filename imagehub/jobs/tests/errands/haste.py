"""Shorter leases, for tests that wait for one to end."""

from datetime import timedelta

from imagehub.jobs import lease, reaper
from imagehub.jobs.models import jobs

LEASE_SECONDS = 12
"""A worker that cannot renew it stops five seconds before its end: a machine may be busy for seven."""


def shorten_leases() -> None:
    """Let the leases of this process end sooner, and look more often for those that have ended."""
    jobs.LEASE = lease.LEASE = timedelta(seconds=LEASE_SECONDS)
    reaper.REAP_SECONDS = 2.0
