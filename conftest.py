"""Fixtures of every test."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from allauth.socialaccount.providers.google import views
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import CacheHandler
from django.db import connection, connections
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from imagehub import config, counters
from imagehub.accounts.tests.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIdProvider
from imagehub.jobs import presence, reaper, stopping
from imagehub.tests import canaries
from imagehub.tests.storage import s3_server


def pytest_configure() -> None:
    """Hash the passwords of tests in no time, for a real one takes most of a second, and look for static files late."""
    django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A client loads the middleware anew, and WhiteNoise would list all static files each time: 30 ms for each client.
    django_settings.WHITENOISE_AUTOREFRESH = True


def uses_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db", "live_server"}
    return bool(
        item.get_closest_marker("django_db") or fixtures.intersection(getattr(item, "fixturenames", ()))
    )


def uses_services(item: pytest.Item) -> bool:
    """Say whether a test may ask the database or the cache. Whoever does not say so gets neither."""
    return uses_database(item) or item.get_closest_marker("cache") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL leave out what cannot tell where it runs: ``make test`` has shown it."""
    if connection.vendor == "sqlite":
        return
    left_out = {item for item in items if not uses_services(item) or item.get_closest_marker("once")}
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test in which something secret was told. Here, and not in a fixture, the database still has its rows."""
    canaries.watch()
    result = yield
    if problems := canaries.take(database=uses_database(item)):
        pytest.fail("\n".join(problems), pytrace=False)
    return result


@pytest.fixture(autouse=True)
def _no_canaries_from_before() -> None:
    canaries.take(database=False)


@pytest.fixture(autouse=True)
def _cache_for_those_who_say_so(request, monkeypatch) -> None:
    """As pytest-django does with the database: a test that forgets its marker fails, and is not left out unnoticed."""

    def refuse(caches, alias):
        pytest.fail("This test uses the cache: it needs the marker `cache`, or the database.")

    if not uses_services(request.node):
        monkeypatch.setattr(CacheHandler, "__getitem__", refuse)


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
    counters.forget()


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


@pytest.fixture
def server(process_env, transactional_db) -> Iterator[tuple[str, subprocess.Popen]]:
    """The web server as it ships, on a free port, with little patience; its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        sys.executable,
        "-m",
        "uvicorn",
        "imagehub.asgi:application",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    process = subprocess.Popen(
        argv, env=process_env | {"IMAGEHUB_WEB_BODY_SECONDS": "2"}, cwd=django_settings.BASE_DIR
    )
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{base}/api/health/live", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield base, process
    finally:
        process.terminate()
        process.wait(timeout=20)


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
def small_disk(tmp_path: Path, settings) -> Iterator[Path]:
    """The media root on a file system of its own, of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system takes root, and a kernel that lets it")
    settings.NAMED_ROOTS = {"media": str(place)}
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="session")
def s3_service() -> Iterator[str]:
    """An S3-compatible service with an empty bucket. The tests share it."""
    with s3_server.serving() as url:
        yield url


@pytest.fixture
def bucket(s3_service, settings) -> str:
    """Keep the files of this test in a bucket. Returns what the names of its objects begin with."""
    prefix = f"test/{uuid4().hex}"
    settings.MEDIA_BUCKET = s3_server.options(s3_service, prefix=prefix)
    settings.STORAGES = settings.STORAGES | {
        "media": {"BACKEND": "imagehub.tests.storage.s3_server.bucket_of", "OPTIONS": settings.MEDIA_BUCKET}
    }
    return prefix


@pytest.fixture(params=["disk", "bucket"])
def anywhere(request) -> str:
    """Run a test once with its files on the disk, and once with them in a bucket."""
    if request.param == "bucket":
        request.getfixturevalue("bucket")
    return request.param


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser, without a window. A module shares it; what a test opens in it is a context of its own.

    Not a session: Playwright's event loop would be in the way of tests that run one of theirs.
    """
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
        # Under Playwright's event loop this thread has connections of its own, which nobody else would close.
        connections.close_all()


@pytest.fixture
def sign_in(live_server) -> Callable[[BrowserContext], User]:
    """Give a browser the session of a new superuser, as the form of the admin would."""

    def sign_in(context: BrowserContext) -> User:
        user = User.objects.create_superuser("ada")
        client = Client()
        client.force_login(user)
        session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
        context.add_cookies(
            [{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}]
        )
        return user

    return sign_in
