"""Who imports what. Apps above this one register their own importers, and this one never knows them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from albums.legacy.running import LegacyRun

Importer = Callable[["LegacyRun"], None]

_importers: dict[str, Importer] = {}


def register(name: str, importer: Importer) -> None:
    """Let ``import_legacy`` run an importer, after those that are registered already.

    To be called from ``AppConfig.ready``. The importer counts in ``run.report.table(name of a table)`` each row that it
    finds there, writes nothing when ``run.dry_run`` is set, and may be run again at any time.
    """
    _importers[name] = importer


def importers() -> dict[str, Importer]:
    """Return the importers by name, in the order in which they run."""
    return dict(_importers)
