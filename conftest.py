"""Fixtures of every test."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.db import connection

from imagehub import config
from imagehub.jobs import presence, reaper, stopping


@pytest.fixture(autouse=True)
def _managed_roots(tmp_path: Path, settings) -> Iterator[None]:
    """Keep every file a test writes in its own folder, and the configuration at its defaults."""
    settings.VAR_DIR = tmp_path
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MODELS_ROOT = tmp_path / "models"
    settings.LOGS_ROOT = tmp_path / "logs"
    settings.CONFIG_FILE = tmp_path / "config.yaml"
    settings.CONFIG_FILE.write_text("storage: {minimum_free_bytes: 0}\n")
    settings.RATELIMIT_CACHE_PREFIX = f"rl:{uuid4().hex}:"  # the counters of other tests are not ours
    config.get_config()  # so that this is the last good one
    yield
    stopping.clear_stop()
    presence._current = None
    reaper._last_reap = float("-inf")


@pytest.fixture
def process_env(tmp_path: Path, settings) -> dict[str, str]:
    """The environment in which a program sees this test's database, files and configuration."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        url = f"sqlite:///{name}"
    else:
        host, port = connection.settings_dict["HOST"], connection.settings_dict["PORT"] or 5432
        user, password = connection.settings_dict["USER"], connection.settings_dict["PASSWORD"]
        url = f"postgres://{user}:{password}@{host}:{port}/{name}"
    return os.environ | {
        "DATABASE_URL": url,
        "IMAGEHUB_VAR": str(tmp_path),
        "IMAGEHUB_MEDIA_ROOT": str(settings.MEDIA_ROOT),
        "IMAGEHUB_MODELS_ROOT": str(settings.MODELS_ROOT),
        "IMAGEHUB_CONFIG": str(settings.CONFIG_FILE),
        "IMAGEHUB_SECRET_KEY": django_settings.SECRET_KEY,
        "PYTHONPATH": str(django_settings.BASE_DIR),
    }


@pytest.fixture
def set_config(settings):
    """Write the configuration file of this test."""

    def write(text: str) -> None:
        settings.CONFIG_FILE.write_text(text)
        config.get_config()

    return write
