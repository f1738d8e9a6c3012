"""Clusters in the admin, and what the pages of all kinds of jobs have in common."""

from imagehub.jobs.admin.presence import WorkerPresenceAdmin

__all__ = ["WorkerPresenceAdmin"]
