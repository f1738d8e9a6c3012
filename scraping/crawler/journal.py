"""What a crawl has done so far, on disk: whoever is killed goes on from here, and fetches nothing twice.

A line is written before the event that tells of it is sent: so a crawl that goes on tells all of it once more, and the worker,
which knows the addresses, hears no end that it does not know already.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Entry = dict[str, Any]


class Journal:
    """An append-only file with one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def read(self) -> Iterator[Entry]:
        """Yield what was written. A last line that was cut off is no entry."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def open(self) -> None:
        """Get ready to write, behind the last whole line."""
        self._file = self._path.open("ab", buffering=0)
        size = self._file.tell()
        with self._path.open("rb") as file:
            end = _end_of_last_line(file, size)
        self._file.truncate(end)

    def write(self, entry: Entry) -> None:
        """Write one entry. It is there when this returns, should the process die; not the machine."""
        if self._file is None:
            raise RuntimeError("The journal is not open.")
        self._file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _end_of_last_line(file: BinaryIO, size: int) -> int:
    """Return the position behind the last line break."""
    while size > 0:
        start = max(0, size - 65_536)
        file.seek(start)
        found = file.read(size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0
