"""Where things come from, and what has come of them: a graph that every app adds its own kinds and links to.

A kind is a sort of thing, such as an image or an adapter; a link leads from one that is there to those that it came from
and those that came of it. Apps register both in ``AppConfig.ready``, so nothing here has to know them: training adds its
runs and scraping its pages, and the walks below pass through them.

Links are told to whoever asks; things only to those who may see them, and what is hidden ends the walk.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import transaction

from albums.batches import BATCH
from albums.models import may_see_everything

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

MOST_NODES = 500
MOST_EDGES = 5 * MOST_NODES
DEEPEST = 20
"""Steps away from where a walk begins. Each picture made from another takes two."""


class Key(NamedTuple):
    """What names a thing: its kind, and its id as text."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True)
class Node:
    """A thing, as somebody may see it."""

    key: Key
    label: str
    url: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Edge:
    """That one thing has come of another. ``label`` is what its origin was called, should that be gone."""

    origin: Key
    result: Key
    role: str
    details: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)
    label: str = field(default="", hash=False, compare=False)


Describe = Callable[[Sequence[str], "AbstractUser | AnonymousUser"], Iterable[Node]]
"""Takes ids and who asks; yields those things that he may see."""

Links = Callable[[Sequence[str]], Iterable[Edge]]
"""Takes at most 500 ids and yields their links in one direction, lazily: who asks may not want all."""

Quarantine = Callable[[Sequence[str], str], int]
"""Takes ids and a reason; takes these things out of use, and returns how many were not out of it yet."""

Sources = Callable[[str], Iterable[Key]]
"""Takes the name of a host, or the address of a page; yields what was fetched from there, and what is to be fetched still."""


@dataclass(frozen=True)
class Kind:
    """A sort of thing: how one of them is shown, and how it is taken out of use."""

    name: str
    describe: Describe
    quarantine: Quarantine | None = None


@dataclass
class Lineage:
    """A part of the graph."""

    nodes: dict[Key, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    is_truncated: bool = False


_kinds: dict[str, Kind] = {}
_origins: dict[str, list[Links]] = defaultdict(list)
_results: dict[str, list[Links]] = defaultdict(list)
_sources: list[Sources] = []
_page_sources: list[Sources] = []


def register_kind(kind: Kind) -> None:
    """Add a kind. Registering a name again replaces it, so that autoreload is harmless."""
    _kinds[kind.name] = kind


def register_links(kind: str, *, origins: Links | None = None, results: Links | None = None) -> None:
    """Say how to find what things of a kind came from, and what has come of them. Each function counts once."""
    for registry, links in ((_origins, origins), (_results, results)):
        if links and links not in registry[kind]:
            registry[kind].append(links)


def register_sources(of_host: Sources, *, of_page: Sources | None = None) -> None:
    """Say how to find what was fetched from a host and those below it, and what from one page."""
    for registry, sources in ((_sources, of_host), (_page_sources, of_page)):
        if sources and sources not in registry:
            registry.append(sources)


def knows_sources() -> bool:
    """Tell whether anything here records where things were fetched from."""
    return bool(_sources)


def found_at(host: str) -> Iterator[Key]:
    """Yield what was fetched from a host or one below it; some of it perhaps twice."""
    for sources in _sources:
        yield from sources(host)


def found_on(page: str) -> Iterator[Key]:
    """Yield what was fetched from one page, or from one address of a picture; some of it perhaps twice."""
    for sources in _page_sources:
        yield from sources(page)


def trace(start: Node, user: "AbstractUser | AnonymousUser", *, forwards: bool = False) -> Lineage:
    """Return what a thing came from, or ``forwards`` what has come of it, as far as somebody may see it.

    Goes breadth first, by a few queries for each step however many things stand there, and ends after 500 of them or
    20 steps; ``is_truncated`` tells if it could have gone on.
    """
    found = Lineage(nodes={start.key: start})
    registry = _results if forwards else _origins
    edges: dict[Edge, None] = {}
    level = [start.key]
    for _ in range(DEEPEST):
        new: dict[Key, Edge] = {}
        for edge in _links_of(level, registry):
            if len(edges) >= MOST_EDGES:
                found.is_truncated = True
                break
            edges[edge] = None
            key = edge.result if forwards else edge.origin
            if key not in found.nodes:
                new.setdefault(key, edge)
        room = MOST_NODES - len(found.nodes)
        described = _seen(new, user)
        if len(described) > room:
            found.is_truncated = True
        level = [key for key in new if key in described][:room]
        found.nodes |= {key: described[key] for key in level}
        if not level:
            break
    else:
        found.is_truncated = found.is_truncated or bool(level)
    found.edges = [edge for edge in edges if edge.origin in found.nodes and edge.result in found.nodes]
    return found


def walk_results(starts: Iterable[Key]) -> Iterator[list[Key]]:
    """Yield all that has come of some things, those first, in lists of one kind: everything, whoever may see it.

    What was met already is noted in a file, so that a million pictures need no more memory than a hundred.
    """
    with TemporaryDirectory(prefix="lineage-") as folder, closing(sqlite3.connect(f"{folder}/met")) as met:
        met.execute("PRAGMA synchronous = OFF")
        met.execute(
            "CREATE TABLE met (place INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, id TEXT, UNIQUE (kind, id) ON CONFLICT IGNORE)"
        )
        _note(met, starts)
        place = 0
        while rows := met.execute(
            "SELECT place, kind, id FROM met WHERE place > ? ORDER BY place LIMIT ?", (place, BATCH)
        ).fetchall():
            kind = rows[0][1]
            batch = [row for row in rows if row[1] == kind]
            # Things of other kinds among them are left for later, behind all that is noted now.
            others = [row for row in rows if row[1] != kind]
            place = rows[-1][0]
            for old, other_kind, pk in others:
                met.execute("DELETE FROM met WHERE place = ?", (old,))
                met.execute("INSERT INTO met (kind, id) VALUES (?, ?)", (other_kind, pk))
            keys = [Key(kind, pk) for _, _, pk in batch]
            yield keys
            _note(met, (edge.result for edge in _links_of(keys, _results)))


def quarantine(keys: Sequence[Key], reason: str) -> int:
    """Take things of one kind out of use; return how many were not out of it yet."""
    kind = _kinds.get(keys[0].kind)
    if kind is None or kind.quarantine is None:
        return 0
    with transaction.atomic():
        return kind.quarantine([key.id for key in keys], reason)


def describe_all(keys: Iterable[Key], user: "AbstractUser | AnonymousUser") -> dict[Key, Node]:
    """Return those of some things that somebody may see."""
    return {node.key: node for node in _describe(keys, user)}


def _note(met: sqlite3.Connection, keys: Iterable[Key]) -> None:
    keys = iter(keys)
    while batch := list(islice(keys, BATCH)):
        met.executemany("INSERT INTO met (kind, id) VALUES (?, ?)", batch)


def _links_of(keys: Iterable[Key], registry: dict[str, list[Links]]) -> Iterator[Edge]:
    for kind, ids in _by_kind(keys).items():
        for links in registry.get(kind, ()):
            yield from links(ids)


def _describe(keys: Iterable[Key], user: "AbstractUser | AnonymousUser") -> Iterator[Node]:
    for kind, ids in _by_kind(keys).items():
        if kind in _kinds:
            yield from _kinds[kind].describe(ids, user)


def _seen(new: dict[Key, Edge], user: "AbstractUser | AnonymousUser") -> dict[Key, Node]:
    """Return what somebody may see of things that links have led to; staff also what is remembered of those now gone."""
    seen = describe_all(new, user)
    if may_see_everything(user):
        for key, edge in new.items():
            if key not in seen and edge.label:
                seen[key] = Node(key, edge.label, details={"is_gone": True})
    return seen


def _by_kind(keys: Iterable[Key]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for key in keys:
        grouped.setdefault(key.kind, []).append(key.id)
    return grouped
