"""What the code at hand is doing, and for whom: read by logs and the audit trail, set at the edges."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered, or that a job came from; else an empty string."""

job_id: ContextVar[str] = ContextVar("job_id", default="")
"""The id of the job that is being done, or an empty string."""
