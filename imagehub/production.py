"""The production gate: what is wrong with an environment, all at once and in plain sentences.

Settings call :func:`refuse_unfit_environment` before they read anything else, so that an operator meets one list and not
one exception after another. Nothing here prints a value: several of them are secrets.
"""

import importlib.util
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from django.core.checks.security.base import (
    SECRET_KEY_INSECURE_PREFIX,
    SECRET_KEY_MIN_LENGTH,
    SECRET_KEY_MIN_UNIQUE_CHARACTERS,
)
from django.core.exceptions import ImproperlyConfigured
from environ import Env

from imagehub.config_file import read as read_config
from imagehub.config_schema import Config
from imagehub.egress.policy import Allowed
from imagehub.logs import FORMATS

POSTGRESQL = "django.db.backends.postgresql"
SQLITE = "django.db.backends.sqlite3"

WHOLE_NUMBERS = (
    "IMAGEHUB_TRUSTED_PROXIES",
    "IMAGEHUB_CONN_MAX_AGE",
    "IMAGEHUB_WEB_THREADS",
    "IMAGEHUB_S3_URL_SECONDS",
    "WEB_CONCURRENCY",
)
ROOTS = {
    "IMAGEHUB_MEDIA_ROOT": "media",
    "IMAGEHUB_MODELS_ROOT": "models",
    "IMAGEHUB_TRAINING_ROOT": "training",
    "IMAGEHUB_SCRAPING_ROOT": "scraping",
}
"""The environment's name of each managed root, and its field in ``paths`` of the configuration file."""
SERVICES = ("IMAGEHUB_GOOGLE_URL", "IMAGEHUB_S3_PUBLIC_ENDPOINT")
"""Addresses of others that we, or the browsers of visitors, send secrets to."""

STORAGES = frozenset({"", "disk", "s3"})
SENTRY_DSN = re.compile(
    r"https?://[0-9A-Za-z]+(:[0-9A-Za-z]+)?@[A-Za-z0-9_.\[\]:-]+(/[A-Za-z0-9_.-]+)*/[0-9]+"
)
URL_SECONDS = range(60, 3601)
ENDPOINT = re.compile(r"https?://[A-Za-z0-9_.\[\]:-]+/?")
ACCEL_PREFIX = re.compile(r"/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*/")

PLACEHOLDER = re.compile(
    r"change[-_ ]?me|replace[-_ ]?(me|this|with)|placeholder|example|insecure|secret[-_ ]?key|your[-_ ]|^<.*>$|\bx{3,}\b"
    r"|^(google[-_ ]?)?(client[-_ ]?)?(id|secret)$|^(todo|tbd|none|null|test|dummy)$",
    re.IGNORECASE,
)
"""Words of documentation and of examples. Each is too long to come up in a random value by chance."""

OFF = frozenset({"", "0", "false", "off", "no", "n"})
ON = frozenset({"1", "true", "on", "yes", "y"})
"""A word in neither is read as what is more careful."""

HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", re.IGNORECASE)


def refuse_unfit_environment(
    environ: Mapping[str, str], *, var_dir: Path, config_file: Path, is_production: bool
) -> None:
    """Stop a start that could not end well.

    Raises:
        ImproperlyConfigured: its text lists every problem, one a line. Outside production these are only the values
            that cannot be read.
    """
    problems = value_problems(environ)
    if is_production:
        problems += production_problems(environ, var_dir=var_dir, config_file=config_file)
    if problems:
        place = " in production" if is_production else ""
        raise ImproperlyConfigured(
            "\n".join([f"ImageHub does not start{place}:", *(f"- {problem}" for problem in problems)])
        )


def value_problems(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each value that cannot be read, whatever the environment is for."""
    return [
        *(
            f"{name} is not a whole number of 0 or more."
            for name in WHOLE_NUMBERS
            if (value := environ.get(name)) and not re.fullmatch(r"[0-9]{1,9}", value)
        ),
        *_database_value_problems(environ.get("DATABASE_URL", "")),
        *_redis_problems(environ.get("REDIS_URL", "")),
        *(
            f"{name} is not an absolute path."
            for name in ROOTS
            if (value := environ.get(name)) and not Path(value).is_absolute()
        ),
        *_log_level_problems(environ.get("IMAGEHUB_LOG_LEVEL", "INFO")),
        *_log_format_problems(environ.get("IMAGEHUB_LOG_FORMAT", "")),
        *(
            f"{name} begins with $, which stands for the name of another variable."
            for name in (
                *("IMAGEHUB_SECRET_KEY", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET"),
                *("IMAGEHUB_S3_ACCESS_KEY", "IMAGEHUB_S3_SECRET_KEY"),
            )
            if environ.get(name, "").startswith("$")
        ),
        *_storage_problems(environ),
        *_alert_problems(environ),
        *_sentry_problems(environ.get("SENTRY_DSN", "")),
        *_allow_private_value_problems(_items(environ.get("IMAGEHUB_SCRAPING_ALLOW_PRIVATE", ""))),
    ]


def production_problems(environ: Mapping[str, str], *, var_dir: Path, config_file: Path) -> list[str]:
    """Return a sentence for each thing that production must not start with or without."""
    return [
        *_database_problems(environ.get("DATABASE_URL", "")),
        *_secret_key_problems(environ.get("IMAGEHUB_SECRET_KEY", "")),
        *_host_problems(_items(environ.get("IMAGEHUB_ALLOWED_HOSTS", ""))),
        *_debug_problems(environ.get("IMAGEHUB_DEBUG", "")),
        *_origin_problems("IMAGEHUB_FRONTEND_ORIGINS", environ.get("IMAGEHUB_FRONTEND_ORIGINS", "")),
        *_origin_problems("IMAGEHUB_CSRF_TRUSTED_ORIGINS", environ.get("IMAGEHUB_CSRF_TRUSTED_ORIGINS", "")),
        *_google_problems(environ),
        *(
            f"{name} does not begin with https://."
            for name in SERVICES
            if (value := environ.get(name, "")) and not value.startswith("https://")
        ),
        *_allow_private_problems(environ),
        *_webhook_problems(environ),
        *_worker_problems(environ.get("WEB_CONCURRENCY", ""), environ.get("REDIS_URL", "")),
        *folder_problems("IMAGEHUB_VAR", var_dir),
        *_file_problems(environ, config_file),
    ]


def _file_problems(environ: Mapping[str, str], config_file: Path) -> list[str]:
    """Return what is wrong with the configuration file, and with the roots that it or the environment names."""
    problems = []
    config = Config()
    try:
        config = read_config(config_file)
    except FileNotFoundError:
        if environ.get("IMAGEHUB_CONFIG"):
            problems.append(f"IMAGEHUB_CONFIG names a file that does not exist: {config_file}.")
    except OSError as error:
        problems.append(f"The configuration file cannot be read: {config_file} ({error.strerror}).")
    except ValueError as error:
        problems.append(f"The configuration file {config_file} is broken: {error}.")
    named = {
        name: environ.get(name, "") or getattr(config.paths, field) or "" for name, field in ROOTS.items()
    }
    return problems + root_problems(named)


def root_problems(named: Mapping[str, str]) -> list[str]:
    """Return a sentence for each managed root that is not a writable folder at an absolute path."""
    problems = []
    for name, value in named.items():
        if not value:
            problems.append(f"{name} is not set: production names each folder it writes to.")
        elif Path(value).is_absolute():
            problems += folder_problems(name, Path(value))
    return problems


def folder_problems(name: str, path: Path) -> list[str]:
    """Return what keeps us from writing to a folder; tried, because permission bits do not tell all of it."""
    if not path.is_dir():
        return [f"{name} names a folder that does not exist: {path}."]
    try:
        with tempfile.TemporaryFile(dir=path):
            return []
    except OSError as error:
        return [f"{name} names a folder that cannot be written to: {path} ({error.strerror})."]


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _database_engine(url: str) -> str:
    """Return the database engine of an address, or an empty string for what is no address of a database."""
    try:
        parts = urlsplit(url)
        engine = Env.DB_SCHEMES.get(parts.scheme, "")
        return engine if engine == SQLITE or (parts.port != 0 and parts.path.strip("/")) else ""
    except ValueError:
        return ""


def _database_value_problems(url: str) -> Iterator[str]:
    if url and not _database_engine(url):
        yield (
            "DATABASE_URL cannot be read: it is written like postgres://user:password@host:5432/name, with special "
            "characters of the password as %XX."
        )


def _database_problems(url: str) -> Iterator[str]:
    engine = _database_engine(url)
    if not url:
        yield "DATABASE_URL is not set: production needs PostgreSQL (postgres://user:password@host:5432/name)."
    elif engine == SQLITE:
        yield "DATABASE_URL names SQLite: production needs PostgreSQL."
    elif engine and engine != POSTGRESQL:
        yield "DATABASE_URL names a database that is not supported: production needs PostgreSQL."


def _redis_problems(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        is_readable = parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0
    except ValueError:
        is_readable = False
    if url and not is_readable:
        yield "REDIS_URL cannot be read: it is written like redis://host:6379/0."


def _log_level_problems(level: str) -> Iterator[str]:
    if level not in logging.getLevelNamesMapping():
        yield "IMAGEHUB_LOG_LEVEL is none of DEBUG, INFO, WARNING and ERROR."


def _log_format_problems(log_format: str) -> Iterator[str]:
    if log_format and log_format not in FORMATS:
        yield "IMAGEHUB_LOG_FORMAT is neither json nor text."


def _storage_problems(environ: Mapping[str, str]) -> Iterator[str]:
    kind = environ.get("IMAGEHUB_STORAGE", "")
    prefix = environ.get("IMAGEHUB_ACCEL_PREFIX", "")
    if kind not in STORAGES:
        yield "IMAGEHUB_STORAGE is neither disk nor s3."
    if prefix and not ACCEL_PREFIX.fullmatch(prefix):
        yield "IMAGEHUB_ACCEL_PREFIX is not a path like /protected/, of letters, digits, - and _."
    if kind != "s3":
        return
    if importlib.util.find_spec("storages") is None or importlib.util.find_spec("boto3") is None:
        yield "IMAGEHUB_STORAGE is s3, but its libraries are not installed: pip install -r requirements-s3.txt."
    if not environ.get("IMAGEHUB_S3_BUCKET"):
        yield "IMAGEHUB_S3_BUCKET is not set: IMAGEHUB_STORAGE is s3."
    keys = ("IMAGEHUB_S3_ACCESS_KEY", "IMAGEHUB_S3_SECRET_KEY")
    if len(missing := [name for name in keys if not environ.get(name)]) == 1:
        yield f"{missing[0]} is not set: the bucket needs both keys, or neither."
    for name in ("IMAGEHUB_S3_ENDPOINT", "IMAGEHUB_S3_PUBLIC_ENDPOINT"):
        if (value := environ.get(name, "")) and not ENDPOINT.fullmatch(value):
            yield f"{name} is not an address like https://s3.example.com, without a path."
    seconds = environ.get("IMAGEHUB_S3_URL_SECONDS", "")
    if seconds.isdecimal() and int(seconds) not in URL_SECONDS:
        yield "IMAGEHUB_S3_URL_SECONDS is not between 60 and 3600."


def _alert_problems(environ: Mapping[str, str]) -> Iterator[str]:
    try:
        parts = urlsplit(environ.get("IMAGEHUB_ALERT_WEBHOOK", ""))
        is_readable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_readable = is_readable and parts.username is None
    except ValueError:
        is_readable = False
    if environ.get("IMAGEHUB_ALERT_WEBHOOK") and not is_readable:
        yield "IMAGEHUB_ALERT_WEBHOOK is not an address like https://hooks.example.com/…, without a user in it."
    email_url = environ.get("EMAIL_URL", "")
    if email_url and email_url.partition("://")[0] not in Env.EMAIL_SCHEMES:
        yield "EMAIL_URL cannot be read: it is written like smtp+tls://user:password@host:587."
    if _items(environ.get("IMAGEHUB_ALERT_EMAILS", "")) and not email_url:
        yield "EMAIL_URL is not set, and IMAGEHUB_ALERT_EMAILS wants mail to be sent."


def _webhook_problems(environ: Mapping[str, str]) -> Iterator[str]:
    is_private = environ.get("IMAGEHUB_ALERT_WEBHOOK_PRIVATE", "").strip().lower() in ON
    if environ.get("IMAGEHUB_ALERT_WEBHOOK", "").startswith("http://") and not is_private:
        yield "IMAGEHUB_ALERT_WEBHOOK begins with http://, which only a private address may (IMAGEHUB_ALERT_WEBHOOK_PRIVATE)."


def _sentry_problems(dsn: str) -> Iterator[str]:
    if not dsn:
        return
    if not SENTRY_DSN.fullmatch(dsn):
        yield "SENTRY_DSN cannot be read: it is written like https://key@sentry.example.com/1."
    if importlib.util.find_spec("sentry_sdk") is None:
        yield "SENTRY_DSN is set, but its library is not installed: pip install -r requirements-sentry.txt."


def _allow_private_value_problems(entries: list[str]) -> Iterator[str]:
    try:
        Allowed.read(entries)
    except ValueError:
        yield (
            "IMAGEHUB_SCRAPING_ALLOW_PRIVATE has an entry that is none of host, host:port and network (10.0.0.0/8): "
            "without scheme and path, and a network without bits set behind its prefix."
        )


def _allow_private_problems(environ: Mapping[str, str]) -> Iterator[str]:
    switch = environ.get("IMAGEHUB_SCRAPING_ALLOW_PRIVATE_IN_PRODUCTION", "")
    if _items(environ.get("IMAGEHUB_SCRAPING_ALLOW_PRIVATE", "")) and switch.strip().lower() not in ON:
        yield (
            "IMAGEHUB_SCRAPING_ALLOW_PRIVATE opens parts of your network to whoever may start a scrape. If that is meant, set "
            "IMAGEHUB_SCRAPING_ALLOW_PRIVATE_IN_PRODUCTION=true as well."
        )


def _secret_key_problems(key: str) -> Iterator[str]:
    advice = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(64))'"
    if not key:
        yield f"IMAGEHUB_SECRET_KEY is not set. {advice}"
    elif key.startswith(SECRET_KEY_INSECURE_PREFIX) or PLACEHOLDER.search(key):
        yield f"IMAGEHUB_SECRET_KEY is a placeholder that everybody knows. {advice}"
    elif (
        len(key) < SECRET_KEY_MIN_LENGTH
        or len(set(key)) < SECRET_KEY_MIN_UNIQUE_CHARACTERS
        or key in (key + key)[1:-1]  # one part over and over
    ):
        yield (
            f"IMAGEHUB_SECRET_KEY is too easy to guess: it needs {SECRET_KEY_MIN_LENGTH} random characters. {advice}"
        )


def _host_problems(hosts: list[str]) -> Iterator[str]:
    if not hosts:
        yield "IMAGEHUB_ALLOWED_HOSTS is not set: name the hosts that this server answers to."
    elif any("*" in host for host in hosts):
        yield "IMAGEHUB_ALLOWED_HOSTS contains *, so anybody's host name would be answered: name the hosts."
    elif not all(HOST.fullmatch(host) for host in hosts):
        yield "IMAGEHUB_ALLOWED_HOSTS has names only, without scheme, port and path."


def _debug_problems(value: str) -> Iterator[str]:
    if value.strip().lower() not in OFF:  # what else there is may be read as on
        yield "IMAGEHUB_DEBUG is on: it shows code and settings to every visitor."


def _origin_problems(name: str, value: str) -> Iterator[str]:
    for origin in _items(value):
        if "*" in origin:
            yield f"{name} contains *: name each origin."
        elif not _is_https_origin(origin):
            yield f"{name} has an entry that is not an origin like https://app.example.com: {_shown(origin)}."


def _is_https_origin(origin: str) -> bool:
    """Tell whether this is what a browser sends as ``Origin`` from a page with TLS, to the letter."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    host = parts.netloc.rpartition(":")[0] if port else parts.netloc
    return bool(HOST.fullmatch(host)) and port != 443 and origin == f"https://{parts.netloc}".lower()


def _shown(origin: str) -> str:
    """An origin as it may be printed: without what may be a password."""
    return repr(origin.rpartition("@")[2][:100])


def _google_problems(environ: Mapping[str, str]) -> Iterator[str]:
    values = {name: environ.get(name, "") for name in ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET")}
    missing = [name for name, value in values.items() if not value]
    if len(missing) == 1:
        yield f"{missing[0]} is not set: sign-in with Google needs both values, or neither."
    for name, value in values.items():
        if PLACEHOLDER.search(value):
            yield f"{name} is a placeholder: take the value from Google's console, or leave both empty."


def _worker_problems(concurrency: str, redis_url: str) -> Iterator[str]:
    if concurrency.isdecimal() and int(concurrency) > 1 and not redis_url:
        yield "REDIS_URL is not set, and WEB_CONCURRENCY asks for several web processes, which have to share limits."
