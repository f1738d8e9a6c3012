"""What the space in the managed roots is used for: a walk through all files, in constant memory and with rests."""

import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from imagehub import storage
from imagehub.operations.file_kinds import OTHER, FileKind, Usage, kinds
from imagehub.roots import every_root

logger = logging.getLogger(__name__)

BUCKET = "bucket"

TURN = 2000
"""So many files are looked at between two rests."""

REST = 0.25
"""A rest takes this share of the time that it took to get there: the disk is for others a fifth of the time."""

MOST_SECONDS = 1800
"""A root whose files cannot all be counted by then is not told of."""

MOST_SECONDS_TOGETHER = 3000
"""All roots take no longer than that: the cluster ends what takes longer than an hour, and nothing would be told."""

Places = list[tuple[list[str], str]]
"""What is left of the patterns below a folder, and the kind that each stands for."""


class TooManyFiles(Exception):
    """Time is up."""


class Pace:
    """Rests now and then, and ends when time is up."""

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self._deadline = time.monotonic() + seconds
        self._count = 0
        self._began = time.monotonic()

    def step(self) -> None:
        """Count one file.

        Raises:
            TooManyFiles: time is up.
        """
        self._count += 1
        if self._count % TURN:
            return
        now = time.monotonic()
        if now > self._deadline:
            raise TooManyFiles
        time.sleep(REST * (now - self._began))
        self._began = time.monotonic()


def usage_of_roots() -> dict[str, dict[str, dict[str, int]]]:
    """Return bytes and files of each root and kind, with what lies in a bucket as a root of its own.

    A root that lies in another one counts for itself alone. One that cannot be counted in time is left out.
    """
    end = time.monotonic() + MOST_SECONDS_TOGETHER
    roots = {name: Path(os.path.realpath(path)) for name, path in every_root().items()}
    found = {}
    for name, path in roots.items():
        others = {str(other) for other in roots.values() if other != path}
        try:
            pace = Pace(min(MOST_SECONDS, end - time.monotonic()))
            usage = measure(path, kinds(name), leave_out=others, pace=pace)
        except TooManyFiles:
            logger.warning("The %s files are too many to be counted in time", name)
        else:
            found[name] = {kind: asdict(used) for kind, used in usage.items()}
    if not storage.is_local():
        found[BUCKET] = {kind.name: asdict(kind.in_bucket()) for kind in kinds() if kind.in_bucket}
    return found


def measure(
    root: Path, file_kinds: Iterable[FileKind], *, leave_out: Collection[str] = (), pace: Pace | None = None
) -> dict[str, Usage]:
    """Return how much there is of each kind below a root, which need not be there.

    Links are not followed. A file with several names counts at each of them with its share of the bytes, so that all add up to what
    there is. Folders take nothing. What vanishes, or cannot be read, is passed over.

    Args:
        root: a real path, without links.
        file_kinds: what is told apart.
        leave_out: paths of folders that are not looked into.
        pace: when to rest, and when to give up.

    Raises:
        TooManyFiles: from the pace.
    """
    pace = pace or Pace()
    file_kinds = list(file_kinds)
    usage = {name: Usage() for name in [*(kind.name for kind in file_kinds), OTHER]}
    patterns = [(place.split("/"), kind.name) for kind in file_kinds for place in kind.places]
    # Open folders from the root down to where we are, and no list of what is in any of them: it may be a million.
    way = [(_look_into(str(root)), OTHER, patterns)]
    while way:
        entries, kind, places = way[-1]
        entry = next(entries, None)
        if entry is None:
            way.pop()
            continue
        pace.step()
        inner, further = _sort(entry.name, kind, places) if places else (kind, places)
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.path not in leave_out:
                    way.append((_look_into(entry.path), inner, further))
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                usage[inner].files += 1
                usage[inner].bytes += status.st_size // max(1, status.st_nlink)
        except OSError:  # it has gone
            continue
    return usage


def _look_into(folder: str) -> Iterator["os.DirEntry[str]"]:
    """Yield what is in a folder, as far as it can be read."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _sort(name: str, kind: str, places: Places) -> tuple[str, Places]:
    """Return the kind of what has this name in a folder, and the patterns that hold below it."""
    fitting = [(place[1:], of) for place, of in places if fnmatchcase(name, place[0])]
    here = next((of for place, of in fitting if not place), kind)
    return here, [(place, of) for place, of in fitting if place]
