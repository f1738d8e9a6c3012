import logging
from contextvars import ContextVar
job_id: ContextVar[str] = ContextVar("job_id", default="")
class RedactingFormatter(logging.Formatter):
    pass
