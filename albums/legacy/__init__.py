"""Moving over from the system before: its SQLite database, and the files that its rows name.

Nothing there is ever written to. What is imported has ids that follow from the ids it had, so that an import can be
repeated: it brings what is new and what failed, and nothing twice.
"""

from albums.legacy.registry import register
from albums.legacy.report import Report, TableReport
from albums.legacy.running import LegacyRun, run_import
from albums.legacy.source import LegacyDatabase, NotLegacy

__all__ = [
    "LegacyDatabase",
    "LegacyRun",
    "NotLegacy",
    "Report",
    "TableReport",
    "register",
    "run_import",
]
