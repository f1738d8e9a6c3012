"""Which kinds of jobs exist. Apps register theirs in ``AppConfig.ready``; the platform never imports them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagehub.jobs.clusters import Cluster

if TYPE_CHECKING:
    from imagehub.jobs.lease import Lease
    from imagehub.jobs.models import Job


@dataclass(frozen=True)
class JobKind:
    """A concrete job model, where it runs, and the function that does its work.

    ``perform`` is given a claimed job and its lease. It returns when the job's results are stored and
    ``lease.complete`` has been called; anything else is told by an exception (see ``imagehub.jobs.runner``).
    """

    name: str
    model: "type[Job]"
    cluster: Cluster
    perform: "Callable[[Any, Lease], None]"


_kinds: dict[str, JobKind] = {}


def register(kind: JobKind) -> None:
    """Add a kind. Registering a name again replaces it, so that autoreload is harmless."""
    _kinds[kind.name] = kind


def get_kind(name: str) -> JobKind:
    """Return a registered kind.

    Raises:
        KeyError: no app has registered the name.
    """
    return _kinds[name]


def kinds(*, cluster: Cluster | None = None) -> Iterator[JobKind]:
    """Yield the registered kinds, of one cluster or of all."""
    for kind in list(_kinds.values()):
        if cluster is None or kind.cluster is cluster:
            yield kind
