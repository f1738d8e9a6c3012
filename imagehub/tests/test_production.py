"""What production refuses to start with, and what it says when it does start. Nothing here needs a network."""

import base64
import http.client
import importlib.util
import json
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings

from imagehub.jobs.management.commands.supervise import web_service
from imagehub.production import PLACEHOLDER, production_problems, value_problems

KEY = secrets.token_urlsafe(64)
NAMES = (
    *("DATABASE_URL", "IMAGEHUB_SECRET_KEY", "IMAGEHUB_ALLOWED_HOSTS"),
    *("IMAGEHUB_MEDIA_ROOT", "IMAGEHUB_MODELS_ROOT", "IMAGEHUB_TRAINING_ROOT", "IMAGEHUB_SCRAPING_ROOT"),
)
ROOTS = NAMES[3:]
# No service listens there: nothing that is tested here may need one.
DATABASE = "postgres://user:hunter2@127.0.0.1:1/imagehub"


BUCKET = {
    "IMAGEHUB_STORAGE": "s3",
    "IMAGEHUB_S3_BUCKET": "pictures",
    "IMAGEHUB_S3_ENDPOINT": "http://minio:9000",
    "IMAGEHUB_S3_PUBLIC_ENDPOINT": "https://files.example.net",
    "IMAGEHUB_S3_ACCESS_KEY": "imagehub",
    "IMAGEHUB_S3_SECRET_KEY": secrets.token_urlsafe(20),
    "IMAGEHUB_S3_URL_SECONDS": "120",
}

OPENED = {
    "IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "10.0.0.0/8, wiki.example.net:8080",
    "IMAGEHUB_SCRAPING_ALLOW_PRIVATE_IN_PRODUCTION": "true",
}


@pytest.fixture
def good(tmp_path) -> dict[str, str]:
    """The least that production starts with."""
    roots = {name: str(tmp_path / name.lower()) for name in ROOTS}
    for root in roots.values():
        Path(root).mkdir()
    return {
        "DATABASE_URL": DATABASE,
        "IMAGEHUB_SECRET_KEY": KEY,
        "IMAGEHUB_ALLOWED_HOSTS": "images.example.net,.example.net,10.0.0.1,[::1]",
        **roots,
    }


@pytest.fixture
def start(good, tmp_path):
    """Run a program in production with these differences, and return its result."""

    def run(argv: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *argv],
            env=production_env(tmp_path, good | changes),
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return run


def production_env(var: Path, values: dict[str, str]) -> dict[str, str]:
    # Empty and not absent, so that a developer's .env has no say.
    absent = ("REDIS_URL", "IMAGEHUB_DEBUG", "IMAGEHUB_TRUSTED_PROXIES", "IMAGEHUB_HSTS_PRELOAD")
    absent += ("IMAGEHUB_FRONTEND_ORIGINS", "IMAGEHUB_CSRF_TRUSTED_ORIGINS", "IMAGEHUB_EXTRA_APPS")
    absent += ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "IMAGEHUB_STORAGE", "IMAGEHUB_ACCEL_PREFIX")
    absent += ("IMAGEHUB_SCRAPING_ALLOW_PRIVATE", "IMAGEHUB_SCRAPING_ALLOW_PRIVATE_IN_PRODUCTION")
    fixed = {"IMAGEHUB_ENV": "production", "IMAGEHUB_VAR": str(var)}
    fixed |= {"IMAGEHUB_LOG_LEVEL": "INFO", "WEB_CONCURRENCY": "1"}
    inherited = {
        name: value for name, value in os.environ.items() if name != "DJANGO_ALLOW_ASYNC_UNSAFE"
    }  # browser tests
    return inherited | dict.fromkeys(absent, "") | fixed | values


def problems(values: dict[str, str], var: Path) -> list[str]:
    return [
        *value_problems(values),
        *production_problems(values, var_dir=var, config_file=var / "config.yaml"),
    ]


class TestTheList:
    def test_a_good_environment_has_no_problems(self, good, tmp_path):
        assert problems(good, tmp_path) == []
        more = {
            "REDIS_URL": "redis://:secret@127.0.0.1:6379/0",
            "WEB_CONCURRENCY": "4",
            "IMAGEHUB_TRUSTED_PROXIES": "1",
            "IMAGEHUB_FRONTEND_ORIGINS": "https://app.example.com, https://app.example.com:8443,https://[::1]:8000",
            "GOOGLE_CLIENT_ID": "123456789012-abcdefgh.apps.googleusercontent.com",
            "GOOGLE_CLIENT_SECRET": "GOCSPX-Zk3vQ0bVw1mXxXy7PqR9aBcD",
            "IMAGEHUB_DEBUG": "false",
            "IMAGEHUB_LOG_LEVEL": "WARNING",
            "IMAGEHUB_ACCEL_PREFIX": "/protected/",
            **OPENED,
            **BUCKET,
        }
        assert problems(good | more, tmp_path) == []

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
            ({"DATABASE_URL": "sqlite:////srv/imagehub.sqlite3"}, "DATABASE_URL names SQLite"),
            ({"DATABASE_URL": "sqlite://:memory:"}, "DATABASE_URL names SQLite"),
            ({"DATABASE_URL": "mysql://u:p@h/n"}, "DATABASE_URL names a database that is not supported"),
            ({"DATABASE_URL": "imagehub"}, "DATABASE_URL cannot be read"),
            ({"DATABASE_URL": "postgres://u:p@h:port/n"}, "DATABASE_URL cannot be read"),
            ({"DATABASE_URL": "postgres://u:p@[::1/n"}, "DATABASE_URL cannot be read"),
            ({"DATABASE_URL": "postgres://u:p@h:5432/"}, "DATABASE_URL cannot be read"),
            (
                OPENED | {"IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "10.0.0.1/8"},
                "IMAGEHUB_SCRAPING_ALLOW_PRIVATE has an",
            ),
            (
                OPENED | {"IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "http://wiki/"},
                "IMAGEHUB_SCRAPING_ALLOW_PRIVATE has an",
            ),
            (
                {"IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "10.0.0.0/8"},
                "IMAGEHUB_SCRAPING_ALLOW_PRIVATE opens parts of",
            ),
            (
                OPENED | {"IMAGEHUB_SCRAPING_ALLOW_PRIVATE_IN_PRODUCTION": "maybe"},
                "IMAGEHUB_SCRAPING_ALLOW_PRIVATE opens parts of",
            ),
            ({"IMAGEHUB_ALERT_WEBHOOK": "hooks.example.com/x"}, "IMAGEHUB_ALERT_WEBHOOK is not an address"),
            ({"IMAGEHUB_ALERT_WEBHOOK": "https://u:p@h/x"}, "IMAGEHUB_ALERT_WEBHOOK is not an address"),
            ({"IMAGEHUB_ALERT_WEBHOOK": "https://h:99999/x"}, "IMAGEHUB_ALERT_WEBHOOK is not an address"),
            ({"IMAGEHUB_ALERT_WEBHOOK": "http://h/x"}, "IMAGEHUB_ALERT_WEBHOOK begins with http://"),
            ({"IMAGEHUB_ALERT_EMAILS": "ops@example.com"}, "EMAIL_URL is not set"),
            ({"EMAIL_URL": "mail.example.com:587"}, "EMAIL_URL cannot be read"),
            ({"REDIS_URL": "localhost:6379"}, "REDIS_URL cannot be read"),
            ({"REDIS_URL": "redis://h:port/0"}, "REDIS_URL cannot be read"),
            ({"IMAGEHUB_SECRET_KEY": ""}, "IMAGEHUB_SECRET_KEY is not set"),
            ({"IMAGEHUB_SECRET_KEY": KEY[:49]}, "IMAGEHUB_SECRET_KEY is too easy"),
            ({"IMAGEHUB_SECRET_KEY": "abcd" * 20}, "IMAGEHUB_SECRET_KEY is too easy"),
            ({"IMAGEHUB_SECRET_KEY": "0123456789" * 6}, "IMAGEHUB_SECRET_KEY is too easy"),
            ({"IMAGEHUB_SECRET_KEY": f"django-insecure-{KEY}"}, "IMAGEHUB_SECRET_KEY is a placeholder"),
            ({"IMAGEHUB_SECRET_KEY": f"changeme-{KEY}"}, "IMAGEHUB_SECRET_KEY is a placeholder"),
            ({"IMAGEHUB_SECRET_KEY": f"Your-Secret-Key{KEY}"}, "IMAGEHUB_SECRET_KEY is a placeholder"),
            ({"IMAGEHUB_SECRET_KEY": f"${KEY}"}, "IMAGEHUB_SECRET_KEY begins with $"),
            ({"IMAGEHUB_ALLOWED_HOSTS": " , "}, "IMAGEHUB_ALLOWED_HOSTS is not set"),
            ({"IMAGEHUB_ALLOWED_HOSTS": "a.example.net,*"}, "IMAGEHUB_ALLOWED_HOSTS contains *"),
            ({"IMAGEHUB_ALLOWED_HOSTS": "https://a.example.net"}, "IMAGEHUB_ALLOWED_HOSTS has names only"),
            ({"IMAGEHUB_ALLOWED_HOSTS": "a.example.net:8000"}, "IMAGEHUB_ALLOWED_HOSTS has names only"),
            ({"IMAGEHUB_DEBUG": "Yes"}, "IMAGEHUB_DEBUG is on"),
            ({"IMAGEHUB_DEBUG": " True "}, "IMAGEHUB_DEBUG is on"),
            ({"IMAGEHUB_DEBUG": "2"}, "IMAGEHUB_DEBUG is on"),
            ({"IMAGEHUB_DEBUG": "$FOO"}, "IMAGEHUB_DEBUG is on"),
            ({"WEB_CONCURRENCY": "2"}, "REDIS_URL is not set, and WEB_CONCURRENCY"),
            ({"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY is not a whole number"),
            ({"IMAGEHUB_TRUSTED_PROXIES": "-1"}, "IMAGEHUB_TRUSTED_PROXIES is not a whole number"),
            ({"IMAGEHUB_CONN_MAX_AGE": "1m"}, "IMAGEHUB_CONN_MAX_AGE is not a whole number"),
            ({"IMAGEHUB_LOG_LEVEL": "LOUD"}, "IMAGEHUB_LOG_LEVEL is none of"),
            ({"IMAGEHUB_FRONTEND_ORIGINS": "*"}, "IMAGEHUB_FRONTEND_ORIGINS contains *"),
            (
                {"IMAGEHUB_CSRF_TRUSTED_ORIGINS": "https://*.a.net"},
                "IMAGEHUB_CSRF_TRUSTED_ORIGINS contains *",
            ),
            ({"GOOGLE_CLIENT_ID": "1-a.apps.googleusercontent.com"}, "GOOGLE_CLIENT_SECRET is not set"),
            ({"GOOGLE_CLIENT_SECRET": "GOCSPX-abc"}, "GOOGLE_CLIENT_ID is not set"),
            (
                {"IMAGEHUB_GOOGLE_URL": "http://127.0.0.1:9000"},
                "IMAGEHUB_GOOGLE_URL does not begin with https",
            ),
            ({"SENTRY_DSN": "sentry.example.com"}, "SENTRY_DSN cannot be read"),
            ({"IMAGEHUB_STORAGE": "tape"}, "IMAGEHUB_STORAGE is neither disk nor s3"),
            ({"IMAGEHUB_STORAGE": "s3"}, "IMAGEHUB_S3_BUCKET is not set"),
            (
                {**BUCKET, "IMAGEHUB_S3_SECRET_KEY": ""},
                "IMAGEHUB_S3_SECRET_KEY is not set: the bucket needs both",
            ),
            ({**BUCKET, "IMAGEHUB_S3_SECRET_KEY": "$SECRET"}, "IMAGEHUB_S3_SECRET_KEY begins with $"),
            ({**BUCKET, "IMAGEHUB_S3_ENDPOINT": "minio:9000"}, "IMAGEHUB_S3_ENDPOINT is not an address"),
            (
                {**BUCKET, "IMAGEHUB_S3_ENDPOINT": "https://h/bucket"},
                "IMAGEHUB_S3_ENDPOINT is not an address",
            ),
            (
                {**BUCKET, "IMAGEHUB_S3_PUBLIC_ENDPOINT": "http://h"},
                "IMAGEHUB_S3_PUBLIC_ENDPOINT does not begin",
            ),
            ({**BUCKET, "IMAGEHUB_S3_URL_SECONDS": "59"}, "IMAGEHUB_S3_URL_SECONDS is not between"),
            ({**BUCKET, "IMAGEHUB_S3_URL_SECONDS": "1h"}, "IMAGEHUB_S3_URL_SECONDS is not a whole number"),
            ({"IMAGEHUB_ACCEL_PREFIX": "protected"}, "IMAGEHUB_ACCEL_PREFIX is not a path"),
            ({"IMAGEHUB_ACCEL_PREFIX": "/a/../b/"}, "IMAGEHUB_ACCEL_PREFIX is not a path"),
        ],
    )
    def test_each_fault_is_named_alone(self, good, tmp_path, changes, sentence):
        (found,) = problems(good | changes, tmp_path)

        assert found.startswith(sentence)

    @pytest.mark.parametrize(
        "origin",
        [
            "http://app.example.com",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x=1",
            "https://APP.example.com",  # browsers send lower case
            "https://app.example.com:443",  # and leave this out
            "https://app.example.com:port",
            "https://user:hunter2@app.example.com",
            "app.example.com",
            "null",
            "https://",
        ],
    )
    def test_an_origin_is_what_a_browser_sends(self, good, tmp_path, origin):
        (found,) = problems(good | {"IMAGEHUB_FRONTEND_ORIGINS": origin}, tmp_path)

        assert "IMAGEHUB_FRONTEND_ORIGINS has an entry that is not an origin" in found
        assert "hunter2" not in found

    @pytest.mark.parametrize(
        "value",
        [
            "your-client-id",
            "YOUR_CLIENT_ID.apps.googleusercontent.com",
            "xxx",
            "changeme",
            "<client id>",
            "client_id",
        ],
    )
    def test_a_placeholder_is_no_client(self, good, tmp_path, value):
        found = problems(good | {"GOOGLE_CLIENT_ID": value, "GOOGLE_CLIENT_SECRET": value}, tmp_path)

        assert [sentence.partition(" is a placeholder")[0] for sentence in found] == [
            "GOOGLE_CLIENT_ID",
            "GOOGLE_CLIENT_SECRET",
        ]

    @pytest.mark.parametrize("name", ROOTS)
    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            ("", "is not set"),
            ("media", "is not an absolute path"),
            ("/no/such/folder", "names a folder that does not exist"),
            pytest.param(
                "/proc",
                "names a folder that cannot be written to",
                marks=pytest.mark.skipif(
                    not Path("/proc").is_dir(), reason="no folder that root cannot write to"
                ),
            ),
        ],
    )
    def test_every_root_is_a_folder_to_write_to(self, good, tmp_path, name, value, sentence):
        (found,) = problems(good | {name: value}, tmp_path)

        assert found.startswith(f"{name} {sentence}")

    def test_the_folder_of_the_system_itself_is_one_too(self, good, tmp_path):
        (found,) = problems(good, tmp_path / "missing")

        assert found.startswith("IMAGEHUB_VAR names a folder that does not exist")

    @pytest.mark.parametrize(
        ("library", "changes", "requirements"),
        [
            ("sentry_sdk", {"SENTRY_DSN": "https://key@sentry.example.com/1"}, "requirements-sentry.txt"),
            ("boto3", BUCKET, "requirements-s3.txt"),
        ],
    )
    def test_a_library_that_is_not_installed_is_named(
        self, good, tmp_path, monkeypatch, library, changes, requirements
    ):
        assert problems(good | changes, tmp_path) == []

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else True)

        (found,) = problems(good | changes, tmp_path)
        assert found.endswith(f"pip install -r {requirements}.")

    def test_random_values_are_not_taken_for_placeholders(self):
        drawn = random.Random(0)
        keys = (base64.urlsafe_b64encode(drawn.randbytes(64)).decode() for _ in range(20_000))

        assert not any(map(PLACEHOLDER.search, keys))


class TestTheStart:
    def test_a_good_environment_passes_the_checks_of_a_deployment(self, start):
        result = start(["manage.py", "check", "--deploy", "--fail-level", "WARNING"])

        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize("name", NAMES)
    def test_each_missing_value_is_named_alone(self, start, name):
        result = start(["manage.py", "check"], **{name: ""})

        title, *found = result.stderr.splitlines()
        assert result.returncode == 1
        assert title == "ImageHub does not start in production:"
        assert len(found) == 1
        assert found[0].startswith(f"- {name} is not set")

    def test_all_faults_are_told_at_once_and_no_secret_is(self, start):
        faults = dict.fromkeys(NAMES, "") | {
            "DATABASE_URL": "postgres://user:hunter2@host:port/name",
            "IMAGEHUB_SECRET_KEY": "changeme-hunter2",
            "IMAGEHUB_DEBUG": "true",
            "IMAGEHUB_TRUSTED_PROXIES": "one",
            "IMAGEHUB_FRONTEND_ORIGINS": "http://user:hunter2@a.example.com",
            "GOOGLE_CLIENT_SECRET": "GOCSPX-hunter2",
            "WEB_CONCURRENCY": "2",
            "IMAGEHUB_VAR": "/no/such/folder",
        }
        result = start(["manage.py", "migrate"], **faults)

        named = {re.match(r"- (\w+)", line)[1] for line in result.stderr.splitlines()[1:]}
        assert result.returncode == 1
        assert named == (set(NAMES) | set(faults) | {"GOOGLE_CLIENT_ID", "REDIS_URL"}) - {
            "GOOGLE_CLIENT_SECRET",  # what is missing is named, and not what is there
            "WEB_CONCURRENCY",
        }
        assert "hunter2" not in result.stdout + result.stderr

    @pytest.mark.parametrize(
        "argv",
        [
            ["manage.py", "help"],
            ["manage.py", "qcluster", "default"],
            ["manage.py", "supervise"],
            ["-m", "uvicorn", "imagehub.asgi:application", "--port", "0"],
            ["-m", "gunicorn", "imagehub.wsgi:application", "--bind", "127.0.0.1:0"],
        ],
        ids=["help", "qcluster", "supervise", "uvicorn", "gunicorn"],
    )
    def test_no_program_starts(self, start, argv):
        result = start(argv, DATABASE_URL="", IMAGEHUB_SECRET_KEY="")

        assert result.returncode != 0
        assert "\n- DATABASE_URL is not set" in result.stderr
        assert "\n- IMAGEHUB_SECRET_KEY is not set" in result.stderr
        if argv[0] == "manage.py":
            assert "Traceback" not in result.stderr

    def test_outside_production_only_what_cannot_be_read_stops_a_start(self, start):
        result = start(
            ["manage.py", "check"],
            IMAGEHUB_ENV="development",
            DATABASE_URL="nonsense",
            IMAGEHUB_TRUSTED_PROXIES="one",
            IMAGEHUB_SECRET_KEY="short",
        )

        assert result.returncode == 1
        assert result.stderr.splitlines() == [
            "ImageHub does not start:",
            "- IMAGEHUB_TRUSTED_PROXIES is not a whole number of 0 or more.",
            "- DATABASE_URL cannot be read: it is written like postgres://user:password@host:5432/name, with special "
            "characters of the password as %XX.",
        ]


SETTINGS = """
import json
from django.conf import settings
names = ["SESSION_COOKIE_NAME", "SESSION_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY", "SESSION_COOKIE_SAMESITE"]
names += ["SESSION_COOKIE_PATH", "SESSION_COOKIE_DOMAIN", "CSRF_COOKIE_PATH", "CSRF_COOKIE_DOMAIN", "DEBUG"]
names += ["SECURE_PROXY_SSL_HEADER", "SECURE_HSTS_PRELOAD", "SILENCED_SYSTEM_CHECKS"]
print(json.dumps({name: getattr(settings, name) for name in names}))
"""


def test_cookies_and_trust_of_production(start):
    def told(**changes: str) -> dict:
        result = start(["-c", SETTINGS], DJANGO_SETTINGS_MODULE="imagehub.settings", **changes)
        return json.loads(result.stdout)

    found = told()
    assert found == {
        "SESSION_COOKIE_NAME": "__Host-sessionid",
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_PATH": "/",
        "SESSION_COOKIE_DOMAIN": None,
        "CSRF_COOKIE_PATH": "/",
        "CSRF_COOKIE_DOMAIN": None,
        "DEBUG": False,
        "SECURE_PROXY_SSL_HEADER": None,  # no proxy of ours, so nobody is believed
        "SECURE_HSTS_PRELOAD": False,
        "SILENCED_SYSTEM_CHECKS": found["SILENCED_SYSTEM_CHECKS"],
    }
    assert "security.W021" in found["SILENCED_SYSTEM_CHECKS"]

    found = told(IMAGEHUB_TRUSTED_PROXIES="1", IMAGEHUB_HSTS_PRELOAD="true")
    assert found["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]
    assert found["SECURE_HSTS_PRELOAD"] is True
    assert "security.W021" not in found["SILENCED_SYSTEM_CHECKS"]


class TestTheServer:
    """The server as `supervise` starts it, behind one proxy. Its database does not answer."""

    @pytest.fixture
    def ask(self, good, start, tmp_path):
        assert start(["manage.py", "collectstatic", "--no-input", "-v0"]).returncode == 0
        packed = {path.suffix for path in (tmp_path / "static").rglob("*")}
        assert ".gz" in packed
        assert ".br" not in packed  # whatever is installed on a machine
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            web_service("127.0.0.1", port).argv,
            env=production_env(tmp_path, good | {"IMAGEHUB_TRUSTED_PROXIES": "1"}),
            cwd=settings.BASE_DIR,
        )

        def ask(path: str, *, host: str = "images.example.net", method: str = "GET", **headers: str):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(
                method,
                path,
                headers={"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()},
            )
            response = connection.getresponse()
            response.body = response.read()
            connection.close()
            return response

        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    ask("/api/health/live")
                    break
                except OSError:
                    time.sleep(0.1)
            yield ask
        finally:
            process.terminate()
            process.wait(timeout=20)

    def test_speaks_tls_only_and_tells_little_of_itself(self, ask):
        # Load balancers ask without TLS, everybody else is sent to it.
        live = ask("/api/health/live")
        assert live.status == 200
        assert live.headers["Strict-Transport-Security"] is None
        moved = ask("/admin/login/?next=/admin/")
        assert (moved.status, moved.headers["Location"]) == (
            301,
            "https://images.example.net/admin/login/?next=/admin/",
        )

        page = ask("/admin/login/", X_Forwarded_Proto="https")
        assert page.status == 200
        assert page.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
        cookie = page.headers["Set-Cookie"]
        assert cookie.startswith("__Host-csrftoken=")
        assert {"Secure", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
        assert "Domain" not in cookie

        for answer in (live, moved, page, ask("/api/nothing", X_Forwarded_Proto="https")):
            assert {"server", "x-powered-by", "via"}.isdisjoint(name.lower() for name in answer.headers)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "unsafe" not in answer.headers["Content-Security-Policy"]

        foreign = ask("/api/health/live", host="evil.test", X_Forwarded_Host="images.example.net")
        assert foreign.status == 400
        assert foreign.headers["Content-Type"] == "application/problem+json"
        assert foreign.headers["X-Content-Type-Options"] == "nosniff"
        assert b"evil.test" not in foreign.body

        # Before Django has seen it.
        long = ask("/api/generate", method="POST", Content_Length="999999999")
        assert long.status == 413
        assert long.headers["X-Content-Type-Options"] == "nosniff"
        assert long.headers["Cache-Control"] == "private, no-store"
        assert long.headers["Content-Security-Policy"] == live.headers["Content-Security-Policy"]
