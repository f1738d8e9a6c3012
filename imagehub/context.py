"""What the code at hand is doing, for whom, and what must not be told of it.

Read by logs and the audit trail, set at the edges: by the middleware for a request, by the runner for a job.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered, or that a job came from; else an empty string."""

job_id: ContextVar[str] = ContextVar("job_id", default="")
"""The id of the job that is being done, or an empty string."""

MAX_HIDDEN = 1000
MAX_HIDDEN_CHARACTERS = 128 * 1024
"""More than this is not looked for in each line: then nothing of a line's text is written at all."""

Facts = Callable[[], Mapping[str, str]]
Strings = Callable[[], Iterable[str]]

_facts: ContextVar[Facts] = ContextVar("facts", default=dict)
_more_hidden: ContextVar[Strings] = ContextVar("more_hidden", default=tuple)
_hidden: ContextVar[dict[str, None] | None] = ContextVar("hidden", default=None)


@contextmanager
def at_work(
    *, request: str = "", job: str = "", facts: Facts = dict, sensitive: Strings = tuple
) -> Iterator[None]:
    """Say what the code within does, and forget what was hidden before.

    ``facts`` and ``sensitive`` are asked whenever a line is written, for some things turn out only on the way:
    who the user is, and what a form says.
    """
    tokens = [
        (request_id, request_id.set(request)),
        (job_id, job_id.set(job)),
        (_facts, _facts.set(facts)),
        (_more_hidden, _more_hidden.set(sensitive)),
        (_hidden, _hidden.set({})),
    ]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)  # type: ignore[arg-type]


def current_request_id() -> str:
    """Return :data:`request_id`, for the default of a field."""
    return request_id.get()


def current_facts() -> Mapping[str, str]:
    """Return what is known of the work at hand, such as its user."""
    return _facts.get()()


def hide(*strings: str) -> None:
    """Keep these strings out of every log line of the request or job at hand."""
    known = _hidden.get()
    if known is None:  # a command
        known = {}
        _hidden.set(known)
    for string in strings:
        if len(known) > MAX_HIDDEN:
            return
        known[string] = None


def hidden_strings() -> tuple[str, ...] | None:
    """Return what must not stand in a log line; None if it is too much to look for."""
    strings = (*(_hidden.get() or ()), *_more_hidden.get()())
    if len(strings) > MAX_HIDDEN or sum(map(len, strings)) > MAX_HIDDEN_CHARACTERS:
        return None
    return strings
