"""Which kinds of jobs exist. Apps register theirs in ``AppConfig.ready``; the platform never imports them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from imagehub.jobs.clusters import Cluster

if TYPE_CHECKING:
    from django.db.models import Model

    from imagehub.jobs.lease import Lease
    from imagehub.jobs.models import Job


@dataclass(frozen=True)
class Measured:
    """What a job that has ended took and brought."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """That each of its phases took."""
    done: Mapping[str, float] = field(default_factory=dict)
    """How much of what it has made, by a plural such as ``images``."""


@dataclass(frozen=True)
class Gathered:
    """A larger piece of work under way, which several jobs make up."""

    row: "Model"
    progress: int
    """Percent."""
    said: str


@dataclass(frozen=True)
class JobKind:
    """A concrete job model, where it runs, and the function that does its work.

    ``perform`` is given a claimed job and its lease. It returns when the job's results are stored and
    ``lease.complete`` has been called; anything else is told by an exception (see ``imagehub.jobs.runner``). It may
    return a function that does the rest, which is called when the next job has begun (see ``runner.finish_previous``).
    """

    name: str
    model: "type[Job]"
    cluster: Cluster
    perform: "Callable[[Any, Lease], Callable[[], None] | None]"
    affinity: str | None = None
    """A column whose value a worker had better not change from job to job, such as that of the model it has loaded."""
    estimate: Callable[[Sequence[Any]], Mapping[UUID, float]] | None = None
    """Tells how many seconds each of some jobs is likely to take, as far as that is known."""
    obstacles: Callable[[Sequence[Any]], Mapping[UUID, str]] | None = None
    """Tells why some of these jobs cannot be done as things are, in a sentence for their owner."""
    writes_to: Sequence[str] = ()
    """The roots that its work fills. While one of their disks is too full, a worker takes no job of the kind: see
    ``imagehub.roots.every_root`` and ``imagehub.room``."""
    facts: Callable[[], Mapping[str, Any]] | None = None
    """What a worker of this kind tells of itself, some times a minute: see ``WorkerPresence.facts``."""
    measure: Callable[[Any], Measured] | None = None
    """Tells what a job that has ended took and brought, for the metrics."""
    speed: Callable[[Any], float | None] | None = None
    """Tells how many steps a second a job makes that runs, where that is known: for work that takes hours."""
    gathered: Callable[[int], Sequence[Gathered]] | None = None
    """Returns at most so many of the larger pieces of work that its jobs belong to and that are not finished, the newest first."""


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


def kind_of(model: "type[Job]") -> JobKind:
    """Return the kind that a model was registered as.

    Raises:
        KeyError: no app has registered it.
    """
    for kind in _kinds.values():
        if kind.model is model:
            return kind
    raise KeyError(model)


def kinds(*, cluster: Cluster | None = None) -> Iterator[JobKind]:
    """Yield the registered kinds, of one cluster or of all."""
    for kind in list(_kinds.values()):
        if cluster is None or kind.cluster is cluster:
            yield kind
