"""What became of each row. The sums are the proof that none was forgotten."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOST_EXAMPLES = 1000


@dataclass(frozen=True)
class RefusedRow:
    """A row that was not imported, and why."""

    row: str
    code: str
    detail: str


@dataclass
class TableReport:
    """What became of the rows of one table."""

    found: int = 0
    imported: int = 0
    already_there: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """How many, by why."""
    examples: list[RefusedRow] = field(default_factory=list)
    """The first that were refused."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was imported differently from how it stood there, and how often."""

    @property
    def refused_rows(self) -> int:
        return self.refused.total()

    @property
    def adds_up(self) -> bool:
        return self.found == self.imported + self.already_there + self.refused_rows

    def refuse(self, row: Any, code: str, detail: str = "") -> None:
        """Note that a row is not imported. ``detail`` tells of no prompt, caption or tag."""
        self.refused[code] += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(RefusedRow(str(row), code, _printable(detail)))

    def as_json(self) -> dict[str, Any]:
        return {
            "found": self.found,
            "imported": self.imported,
            "already_there": self.already_there,
            "refused": self.refused_rows,
            "reasons": dict(self.refused),
            "refused_rows": [vars(example) for example in self.examples],
            "notes": dict(self.notes),
            "adds_up": self.adds_up,
        }


@dataclass
class Report:
    """What became of a database."""

    tables: dict[str, TableReport] = field(default_factory=dict)
    left_alone: dict[str, int] = field(default_factory=dict)
    """Tables that nobody imports, and how many rows they have."""

    def table(self, name: str) -> TableReport:
        """Return the count of a table, begun where it is missing."""
        return self.tables.setdefault(name, TableReport())

    @property
    def refused_rows(self) -> int:
        return sum(table.refused_rows for table in self.tables.values())

    @property
    def adds_up(self) -> bool:
        return all(table.adds_up for table in self.tables.values())


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
