"""``config.yaml`` in force: what operators tune while the system runs.

A read costs one ``stat``. A file that breaks keeps the last good configuration in force, and says so
in the log and in :func:`problem`.
"""

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from imagehub.config_file import read
from imagehub.config_schema import Config
from imagehub.errors import Conflict

logger = logging.getLogger(__name__)

UNREADABLE = (-1, -1, -1)

Stamp = tuple[int, int, int]


class ConfigBroken(Conflict):
    code = "configuration_broken"
    title = "The configuration file is broken"


@dataclass
class _Cache:
    """The last good configuration, and the state of the file it was read from."""

    config: Config
    path: Path | None = None
    stamp: Stamp | None = None
    problem: str = ""
    loaded_at: datetime | None = None


@dataclass(frozen=True)
class CacheState:
    """What this process knows of the file, and how the file is now. Times are those of the file's last change."""

    cached: bool
    config_path: str
    file_exists: bool
    cached_mtime: datetime | None
    file_mtime: datetime | None
    cache_stale: bool
    problem: str
    loaded_at: datetime | None


_cache = _Cache(Config())
_lock = threading.Lock()


def get_config() -> Config:
    """Return the configuration in force."""
    path = settings.CONFIG_FILE
    stamp = _stamp(path)
    if stamp != _cache.stamp or path != _cache.path:
        with _lock:
            _load(path, stamp)
    return _cache.config


def problem() -> str:
    """Return what is wrong with the file that should be in force, or an empty string."""
    get_config()
    return _cache.problem


def reload() -> Config:
    """Read the file now, whether or not it seems to have changed.

    Raises:
        ConfigBroken: it is broken. The last good configuration stays in force.
    """
    with _lock:
        _load(settings.CONFIG_FILE, _stamp(settings.CONFIG_FILE))
    if _cache.problem:
        raise ConfigBroken(f"The last good configuration stays in force: {_cache.problem}")
    return _cache.config


def cache_state() -> CacheState:
    """Return the state of the cache as it is, without reading the file."""
    path = settings.CONFIG_FILE
    stamp = _stamp(path)
    return CacheState(
        cached=_cache.loaded_at is not None,
        config_path=str(path),
        file_exists=stamp is not None,
        cached_mtime=_mtime(_cache.stamp),
        file_mtime=_mtime(stamp),
        cache_stale=(stamp, path) != (_cache.stamp, _cache.path),
        problem=_cache.problem,
        loaded_at=_cache.loaded_at,
    )


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError:  # it is there, but cannot be looked at: reading it will say why
        return UNREADABLE
    return found.st_mtime_ns, found.st_size, found.st_ino


def _mtime(stamp: Stamp | None) -> datetime | None:
    return datetime.fromtimestamp(stamp[0] / 1e9, UTC) if stamp and stamp != UNREADABLE else None


def _load(path: Path, stamp: Stamp | None) -> None:
    """Read the file into the cache; a broken one leaves the configuration as it was."""
    was_there = _cache.stamp is not None and _cache.path == path
    try:
        if stamp is None and (was_there or settings.CONFIG_FILE_IS_NAMED):
            raise FileNotFoundError(f"There is no file {path.name}.")
        _cache.config = read(path) if stamp else Config()
        _cache.problem = ""
        _cache.loaded_at = datetime.now(UTC)
    except (OSError, ValueError) as error:
        _cache.problem = str(error)
        logger.error("The configuration file is broken; the last good one stays in force: %s", error)
    _cache.path, _cache.stamp = path, stamp
