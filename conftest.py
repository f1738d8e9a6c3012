"""Fixtures of every test."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from allauth.socialaccount.providers.google import views
from django.conf import settings as django_settings
from django.db import connection
from playwright.sync_api import Browser, sync_playwright

from imagehub import config
from imagehub.accounts.tests.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIdProvider
from imagehub.jobs import presence, reaper, stopping
from imagehub.tests import canaries


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test in which something secret was told. Here, and not in a fixture, the database still has its rows."""
    canaries.watch()
    result = yield
    uses_database = item.get_closest_marker("django_db") or "db" in getattr(item, "fixturenames", ())
    if problems := canaries.take(database=bool(uses_database)):
        pytest.fail("\n".join(problems), pytrace=False)
    return result


@pytest.fixture(autouse=True)
def _no_canaries_from_before() -> None:
    canaries.take(database=False)


@pytest.fixture(autouse=True)
def _managed_roots(tmp_path: Path, settings) -> Iterator[None]:
    """Keep every file a test writes in its own folder, and the configuration at its defaults."""
    settings.VAR_DIR = tmp_path
    settings.NAMED_ROOTS = {}
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
        "IMAGEHUB_CONFIG": str(settings.CONFIG_FILE),
        "IMAGEHUB_SECRET_KEY": django_settings.SECRET_KEY,
        "PYTHONPATH": str(django_settings.BASE_DIR),
    }


class RedisServer(subprocess.Popen):
    """A Redis of a test's own, that it may freeze and kill."""

    def __init__(self, port: int, folder: Path) -> None:
        argv = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        super().__init__(argv, stdout=subprocess.DEVNULL)
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    def wait_until_it_answers(self) -> None:
        for _ in range(200):
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
            ):
                connection.sendall(b"PING\r\n")
                if connection.recv(5) == b"+PONG":
                    return
            time.sleep(0.05)
        raise TimeoutError("redis-server does not answer")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Callable[[], RedisServer]]:
    """Start servers on free ports, and end them."""
    running: list[RedisServer] = []

    def start() -> RedisServer:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        running.append(RedisServer(port, tmp_path))
        running[-1].wait_until_it_answers()
        return running[-1]

    yield start
    for server in running:
        server.kill()  # also one that was frozen
        server.wait()


@pytest.fixture
def set_config(settings):
    """Write the configuration file of this test."""

    def write(text: str) -> None:
        settings.CONFIG_FILE.write_text(text)
        config.get_config()

    return write


@pytest.fixture
def openid() -> Iterator[OpenIdProvider]:
    """A provider that nobody knows yet."""
    provider = OpenIdProvider()
    yield provider
    provider.shutdown()
    provider.server_close()


@pytest.fixture
def google(openid, settings, monkeypatch) -> OpenIdProvider:
    """The provider in Google's place, in this process. allauth reads its addresses when it is imported."""
    settings.SOCIALACCOUNT_PROVIDERS = {
        "google": settings.SOCIALACCOUNT_PROVIDERS["google"]
        | {"APPS": [{"client_id": CLIENT_ID, "secret": CLIENT_SECRET}]}
    }
    monkeypatch.setattr(views.GoogleOAuth2Adapter, "authorize_url", f"{openid.url}/authorize")
    monkeypatch.setattr(views.GoogleOAuth2Adapter, "access_token_url", f"{openid.url}/token")
    monkeypatch.setattr(views, "ID_TOKEN_ISSUER", openid.url)
    return openid


@pytest.fixture
def chromium() -> Iterator[Browser]:
    """A real browser, without a window."""
    program = shutil.which("chromium") or shutil.which("chromium-headless-shell")
    if program is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        yield browser
        browser.close()
