"""Purges: what ended some time ago is cleared out, by the clock, or because a person or a command asks for it.

Each app registers what it clears out as a kind, in ``AppConfig.ready``. All else is the same for all of them: a purge is a row,
which one worker claims and which tells afterwards what came of it.
"""

import logging
import time as clocks
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from operator import attrgetter
from typing import Any, Protocol

from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from imagehub.accounts import audit
from imagehub.config import get_config
from imagehub.database import is_unavailable
from imagehub.errors import Invalid
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.queue import send
from imagehub.operations.models import Purge

logger = logging.getLogger(__name__)

LOST = timedelta(minutes=10)
"""A purge that has not got on with it for so long has lost its worker: no piece of it should take that long, and if one does,
its worker stops after it."""

NOTED_EVERY = 1.0
"""At most once in so many seconds a purge notes that it gets on with it."""

REMEMBERED = timedelta(days=90)
"""How long it is told what a purge has deleted."""

MOST_DAYS = 36_500
"""So long ago at most things are asked to have ended: a century."""

GREATEST_LIMIT = 2**31 - 1
"""What its column holds."""

MOST_TOLD = 20
"""Of so many things that could not be deleted a record says why. All are counted, and stand in the log."""

BROKEN_OFF = "It was broken off"

TAKEN_UP = "It was taken up again after its worker was lost: what went before that is not counted"

FIRST_SEEN = "Seen for the first time: nothing is deleted until the clock strikes next"

NOT_WANTED = "The configuration does not want it any more: nothing was looked at"


class NotThere(Exception):
    """What is to be purged cannot be seen, for example because a disk is not mounted. The text says so, without a path."""


class _TakenOver(Exception):
    """Somebody else does this purge now, or has ended it."""


@dataclass(kw_only=True)
class Freed:
    """What a purge deletes, or would. Each kind adds counts of its own."""

    bytes: int = 0
    """Not those of files that lie elsewhere as well, by a hard link."""
    failed: int = 0
    """Of how many things not all could be deleted. The next purge tries again."""
    errors: list[str] = field(default_factory=list)
    """What was in the way, of the first of them."""

    def fail(self, what: str, why: str | None) -> None:
        """Count something of which not all can be deleted, and say so.

        Args:
            what: which thing; never by a path.
            why: what was in the way, without paths: of an ``OSError`` its ``strerror``.
        """
        logger.error("Not all of %s can be deleted: %s", what, why)
        self.failed += 1
        if len(self.errors) < MOST_TOLD:
            self.errors.append(f"{what}: {why}")


class Perform(Protocol):
    """Deletes what ended before ``cutoff``, of at most ``limit`` things, and calls ``on_progress`` after each piece of it.

    What cannot be deleted is counted, keeps nothing else from being deleted, and is left to the next purge. So is what
    is not reached when the process dies. Two at once do no harm. Raises ``NotThere`` where the files of all of them are missing.
    """

    def __call__(
        self, *, cutoff: datetime, is_dry_run: bool, limit: int | None, on_progress: Callable[[], None]
    ) -> Freed: ...


@dataclass(frozen=True)
class PurgeKind:
    """Something that is cleared out when it is old."""

    name: str
    things: str
    """What is old, in the plural, for sentences."""
    setting: str
    """Where the configuration says after how many days; 0 is never."""
    clock: str
    """Where it says at what time of the day (UTC) that is done."""
    perform: Perform
    counts: Mapping[str, str]
    """The counts of its ``Freed``, and what each is called."""
    cluster: Cluster = Cluster.DEFAULT
    ended: str = "ended"
    """What they have done as long ago as is asked for, for sentences."""

    def retention(self) -> int:
        """Return after how many days things go by the clock; 0: never."""
        return int(attrgetter(self.setting)(get_config()))

    def last_due(self, now: datetime) -> date:
        """Return the day whose purge by the clock is the last that is due at a moment."""
        at = time.fromisoformat(attrgetter(self.clock)(get_config()))
        now = now.astimezone(UTC)
        return now.date() if now.time() >= at else now.date() - timedelta(days=1)

    def next_due(self, now: datetime) -> datetime:
        """Return when the clock strikes next for it."""
        at = time.fromisoformat(attrgetter(self.clock)(get_config()))
        return datetime.combine(self.last_due(now) + timedelta(days=1), at, UTC)


_kinds: dict[str, PurgeKind] = {}


def register(kind: PurgeKind) -> None:
    """Add a kind. Registering a name again replaces it, so that autoreload is harmless."""
    _kinds[kind.name] = kind


def get_kind(name: str) -> PurgeKind:
    """Return a registered kind.

    Raises:
        KeyError: no app has registered the name.
    """
    return _kinds[name]


def kinds(*, cluster: Cluster | None = None) -> Iterator[PurgeKind]:
    """Yield the registered kinds, of one cluster or of all."""
    for kind in list(_kinds.values()):
        if cluster is None or kind.cluster is cluster:
            yield kind


def days_or_retention(kind: PurgeKind, older_than_days: int | None) -> int:
    """Return how many days ago things have to have ended: what somebody says, or else what is configured.

    Raises:
        Invalid: nobody says it, and the configuration is to delete nothing (``required``).
    """
    days = kind.retention() if older_than_days is None else older_than_days
    if older_than_days is None and not days:
        detail = f"All {kind.things} are kept for ever ({kind.setting} is 0): say how old they have to be."
        raise Invalid(detail, pointer="/older_than_days", code="required")
    return days


def request_purge(
    name: str,
    *,
    user: User | None,
    older_than_days: int | None = None,
    limit: int | None = None,
    is_dry_run: bool = False,
) -> Purge:
    """Ask for what ended so long ago to be deleted; the cluster of its kind does it in a moment.

    Raises:
        Invalid: see :func:`days_or_retention`.
    """
    kind = get_kind(name)
    with transaction.atomic():
        purge = Purge.objects.create(
            kind=name,
            origin=Purge.Origin.PERSON,
            requested_by=user,
            older_than_days=days_or_retention(kind, older_than_days),
            limit=limit,
            is_dry_run=is_dry_run,
        )
        _send(kind.cluster)
    return purge


def purge_now(
    name: str, *, older_than_days: int | None = None, limit: int | None = None, is_dry_run: bool = False
) -> Purge:
    """Do a purge at once, as a command does, and return what came of it.

    Raises:
        Invalid: see :func:`days_or_retention`.
    """
    purge = Purge.objects.create(
        kind=name,
        origin=Purge.Origin.COMMAND,
        older_than_days=days_or_retention(get_kind(name), older_than_days),
        limit=limit,
        is_dry_run=is_dry_run,
        state=Purge.State.WORKING,
        worked_at=timezone.now(),
        token=uuid.uuid4(),
    )
    try:
        return _carry_out(purge)
    except BaseException:  # somebody at the keyboard, perhaps, who has seen that it is a mistake
        with suppress(DatabaseError):
            _note(purge, {"problem": BROKEN_OFF})
        raise


def plan_due_purges() -> int:
    """Plan the purges by the clock that are due and that nobody has planned; return how many.

    Of a day on which nothing ran, one is made up for. A kind that the clock has never seen to waits until it strikes next, so
    that whoever installs or upgrades can say first what is to be kept.
    """
    planned, now = 0, timezone.now()
    for kind in kinds():
        if not (days := kind.retention()):
            continue
        values = {
            "origin": Purge.Origin.CLOCK,
            "older_than_days": days,
            "is_dry_run": get_config().purges.dry_run,
        }
        is_known = Purge.objects.filter(kind=kind.name, due_on__isnull=False).exists()
        if not is_known:
            done = {"state": Purge.State.DONE, "result": {"note": FIRST_SEEN}, "finished_at": now}
            values |= done | {"is_dry_run": True}
        due = {"kind": kind.name, "due_on": kind.last_due(now)}
        planned += Purge.objects.get_or_create(**due, defaults=values)[1] and is_known
    return planned


def see_to_purges() -> int:
    """Plan what is due, do what waits for the cluster ``default``, and tell other clusters of theirs; return how many were done here."""
    Purge.objects.filter(finished_at__lt=timezone.now() - REMEMBERED).delete()
    _give_up_commands()
    plan_due_purges()
    for cluster in {kind.cluster for kind in kinds()} - {Cluster.DEFAULT}:
        if _free(cluster).exists():
            _send(cluster)
    return purge_waiting(Cluster.DEFAULT)


def purge_waiting(cluster: Cluster) -> int:
    """Do the purges that wait for a cluster; return how many were done here. Harmless when repeated, or twice at once."""
    done = 0
    while (purge := _claim(cluster)) is not None:
        _carry_out(purge)
        done += 1
    return done


def told(purge: Purge) -> str:
    """Return in a few words what a purge has deleted, or would; nothing where that is not known yet."""
    if not purge.result or purge.kind not in _kinds:
        return ""
    note = purge.result.get("note", "")
    if "bytes" not in purge.result:
        return str(note)
    counts = get_kind(purge.kind).counts
    parts = [f"{purge.result.get(field, 0)} {called}" for field, called in counts.items()]
    counted = f"{', '.join(parts)} ({filesizeformat(purge.result['bytes'])})"
    return f"{counted}. {note}" if note else counted


def _send(cluster: Cluster) -> None:
    send(cluster, "imagehub.operations.tasks.purge_waiting", cluster.value)


def _free(cluster: Cluster) -> QuerySet[Purge]:
    """Return the purges that wait for a cluster, or whose worker is lost."""
    is_lost = Q(state=Purge.State.WORKING, worked_at__lt=timezone.now() - LOST)
    free = Purge.objects.filter(Q(state=Purge.State.WAITING) | is_lost)
    # A command that was stopped may have been stopped on purpose: nobody goes on with it.
    return free.exclude(origin=Purge.Origin.COMMAND).filter(
        kind__in=[kind.name for kind in kinds(cluster=cluster)]
    )


def _claim(cluster: Cluster) -> Purge | None:
    """Take the next purge that waits, or that has lost its worker."""
    free = _free(cluster)
    for pk, state in list(free.order_by("created_at", "pk").values_list("pk", "state")):
        ours = {"state": Purge.State.WORKING, "worked_at": timezone.now(), "token": uuid.uuid4()}
        if state == Purge.State.WORKING:
            ours["result"] = {"note": TAKEN_UP}
        # Of two who want it, one finds it taken: the condition is looked at again when the row is written.
        if free.filter(pk=pk, state=state).update(**ours):
            return Purge.objects.get(pk=pk, token=ours["token"])
    return None


def _ours(purge: Purge) -> QuerySet[Purge]:
    """Return the row of a purge, as long as nobody else has taken it up or ended it."""
    return Purge.objects.filter(pk=purge.pk, token=purge.token, state=Purge.State.WORKING)


def _is_still_wanted(purge: Purge, kind: PurgeKind) -> bool:
    """Tell whether the configuration still wants a purge; one by the clock then does what it says now."""
    if purge.origin == Purge.Origin.CLOCK:
        days = kind.retention()
        if not days:
            return False
        purge.older_than_days, purge.is_dry_run = days, get_config().purges.dry_run
        _ours(purge).update(older_than_days=days, is_dry_run=purge.is_dry_run)
    return True


def _carry_out(purge: Purge) -> Purge:
    """Do a purge that was claimed, and note what came of it."""
    kind = get_kind(purge.kind)
    if not _is_still_wanted(purge, kind):
        return _note(purge, {"note": NOT_WANTED})
    noted_at = -NOTED_EVERY

    def on_progress() -> None:
        nonlocal noted_at
        if (now := clocks.monotonic()) - noted_at < NOTED_EVERY:
            return
        noted_at = now
        if not _ours(purge).update(worked_at=timezone.now()):
            raise _TakenOver

    try:
        freed = kind.perform(
            cutoff=purge.created_at - timedelta(days=purge.older_than_days),
            is_dry_run=purge.is_dry_run,
            limit=purge.limit,
            on_progress=on_progress,
        )
    except _TakenOver:
        logger.warning("Purge %s is done by somebody else now", purge.pk)
        purge.refresh_from_db()
        return purge
    except NotThere as error:
        logger.error("Purge %s is refused: %s", purge.pk, error)
        return _note(purge, {"problem": str(error)})
    except Exception as error:
        if isinstance(error, DatabaseError) and is_unavailable(error):
            raise  # nothing can be noted now, and it may pass: somebody goes on with it later
        logger.exception("Purge %s failed unexpectedly", purge.pk)
        return _note(purge, {"problem": "It failed unexpectedly: the log says more"})
    result = asdict(freed)
    if freed.failed:
        result["problem"] = f"Of {freed.failed} {kind.things} not all could be deleted"
    return _note(purge, result)


def _note(purge: Purge, result: dict[str, Any]) -> Purge:
    """Note what came of a purge, unless somebody else has it now."""
    state = Purge.State.FAILED if "problem" in result else Purge.State.DONE
    result = purge.result | result
    with transaction.atomic():
        is_noted = _ours(purge).update(state=state, result=result, finished_at=Now())
        purge.refresh_from_db()
        if is_noted and not purge.is_dry_run:
            audit.record(f"{purge.kind}.purge", purge, after=result)
    return purge


def _give_up_commands() -> None:
    """Say of commands that were killed that they are over."""
    Purge.objects.filter(
        origin=Purge.Origin.COMMAND, state=Purge.State.WORKING, worked_at__lt=timezone.now() - LOST
    ).update(state=Purge.State.FAILED, result={"problem": BROKEN_OFF}, finished_at=Now())
