"""What all crawls have to agree on about hosts, in the database: the store of :mod:`scraping.politeness` for workers."""

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from imagehub.errors import StillBusy
from scraping.models import HostRecord, SiteFile
from scraping.politeness.hosts import HostState
from scraping.politeness.recent import Recent
from scraping.politeness.store import MOST_FILE_BYTES, MOST_FILES, PolicyFile

T = TypeVar("T")
State = dict[str, Any]

MOST_STATES = 5_000
"""Of hosts, kept in memory beside the database. The one that was not asked for longest goes first."""

TRUSTED_SECONDS = 60.0
"""So long a file is not looked up again. Another crawl may have fetched a newer one meanwhile, which can wait as long."""

CHANGE_SECONDS = 10.0
"""So long it is tried to change a row that others change as well."""

FORGET_AFTER = timedelta(days=30)

BATCH = 1000
"""Rows that are forgotten by one statement."""


class SharedStore:
    """Remembers in the database. One for each attempt at a crawl; not to be shared by threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: OrderedDict[str, tuple[State, int | None]] = OrderedDict()
        """What the rows of hosts held when they were last seen, and their versions."""
        self._files: Recent[tuple[str, str], tuple[PolicyFile, float]] = Recent(
            most=MOST_FILES, most_bytes=MOST_FILE_BYTES
        )

    def change(self, host: str, step: Callable[[HostState], T]) -> T:
        """See :class:`scraping.politeness.store.Store`. A step is taken again where somebody else was faster.

        Raises:
            StillBusy: others are always faster.
        """
        deadline = time.monotonic() + CHANGE_SECONDS
        while True:
            # What was written last is as good as what would be read: if it is not any more, it cannot be swapped.
            known = self._states.pop(host, None)
            before, version = known or self._read(host)
            state = HostState.read(deepcopy(before))
            result = step(state)
            after = asdict(state)
            if after != before and self._swap(host, version, after):
                self._remember_state(host, after, 0 if version is None else version + 1)
                return result
            if after == before and known is None:
                self._remember_state(host, before, version)
                return result
            if time.monotonic() > deadline:
                raise StillBusy("Others change the state of this host all the time.")
            if known is None:
                time.sleep(random.uniform(0, 0.01))  # noqa: S311 - spreads load, guards nothing

    def _remember_state(self, host: str, state: State, version: int | None) -> None:
        self._states[host] = state, version
        while len(self._states) > MOST_STATES:
            self._states.popitem(last=False)

    @staticmethod
    def _read(host: str) -> tuple[State, int | None]:
        row = HostRecord.objects.filter(pk=host).values_list("state", "version").first()
        return row or ({}, None)

    @staticmethod
    def _swap(host: str, version: int | None, state: State) -> bool:
        if version is not None:
            rows = HostRecord.objects.filter(pk=host, version=version)
            return bool(rows.update(state=state, version=version + 1, changed_at=timezone.now()))
        try:
            with transaction.atomic():
                HostRecord(host=host, state=state).save(force_insert=True)
        except IntegrityError:
            return False
        return True

    def claim_fetch(self, origin: str, path: str, *, now: float, until: float) -> bool:
        free = SiteFile.objects.filter(origin=origin, path=path, claimed_until__lte=now)
        if free.update(claimed_until=until, changed_at=timezone.now()):
            return True
        if SiteFile.objects.filter(origin=origin, path=path).exists():
            return False
        try:
            with transaction.atomic():
                SiteFile(origin=origin, path=path, claimed_until=until).save(force_insert=True)
        except IntegrityError:
            return False
        return True

    def release_fetch(self, origin: str, path: str) -> None:
        SiteFile.objects.filter(origin=origin, path=path).update(claimed_until=0.0)

    def file(self, origin: str, path: str) -> PolicyFile | None:
        key = origin, path
        known = self._files.get(key)
        if known is not None and self._clock() < known[1]:
            return known[0]
        rows = SiteFile.objects.filter(origin=origin, path=path, fetched_at__isnull=False)
        row = rows.values_list("status", "body", "fetched_at").first()
        if row is None:
            return None
        status, body, fetched_at = row
        file = PolicyFile(status, bytes(body), fetched_at)
        self._remember(key, file)
        return file

    def keep_file(self, origin: str, path: str, file: PolicyFile) -> None:
        SiteFile.objects.update_or_create(
            origin=origin,
            path=path,
            defaults={
                "status": file.status,
                "body": file.body,
                "fetched_at": file.fetched_at,
                "claimed_until": 0.0,
            },
        )
        self._remember((origin, path), file)

    def _remember(self, key: tuple[str, str], file: PolicyFile) -> None:
        self._files.put(key, (file, self._clock() + TRUSTED_SECONDS), len(file.body))


def forget_hosts() -> int:
    """Delete what nobody has asked for in a month; return how many rows."""
    cutoff = timezone.now() - FORGET_AFTER
    return sum(_delete(model.objects.filter(changed_at__lt=cutoff)) for model in (HostRecord, SiteFile))


def _delete(rows: QuerySet[Any]) -> int:
    """Delete rows, some at a time; return how many. Without signals, for which each would be read: nothing hangs on them.

    What is used meanwhile is not among the rows any more, and stays.
    """
    deleted = 0
    while keys := list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        deleted += rows.filter(pk__in=keys)._raw_delete(using=rows.db)
    return deleted
