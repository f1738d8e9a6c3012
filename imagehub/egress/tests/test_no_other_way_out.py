"""Nothing in the source makes requests but the guard, and what is named here with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

MODULES = frozenset(
    {
        *(
            "httpx",
            "httpx2",
            "httpcore",
            "httpcore2",
            "requests",
            "urllib3",
            "aiohttp",
            "pycurl",
            "websockets",
        ),
        *(
            "urllib.request",
            "http.client",
            "xmlrpc.client",
            "ftplib",
            "smtplib",
            "imaplib",
            "poplib",
            "telnetlib",
        ),
        *(
            "boto3",
            "botocore",
            "storages",
            "huggingface_hub",
            "datasets",
            "gdown",
            "scrapy",
            "twisted",
            "treq",
        ),
        *("sentry_sdk", "paramiko", "django.core.mail", "allauth.socialaccount.providers.google.views"),
    }
)
"""What requests can be made with. A part of a module counts like the whole."""

CALLS = frozenset(
    {
        *("create_connection", "open_connection", "urlopen", "urlretrieve", "connect_ex", "getaddrinfo"),
        *(
            "from_pretrained",
            "from_single_file",
            "hf_hub_download",
            "snapshot_download",
            "load_file_from_url",
        ),
        *("load_state_dict_from_url", "validate_file_exists"),
    }
)
"""Names of functions that open connections, or that fetch what is not on the disk, whatever they are imported from."""

PROGRAMS = frozenset({"curl", "wget", "git", "ssh", "scp", "nc", "gallery-dl", "yt-dlp"})

ALLOWED = {
    "imagehub/egress/client.py": "the guard",
    "imagehub/egress/connections.py": "the guard",
    "imagehub/egress/scrapy_guard.py": "the guard",
    "scraping/crawler": "crawls, under the settings of the guard",
    "imagehub/storage/bucket.py": "the bucket that the operator configures",
    "imagehub/accounts/google.py": "the sign-in provider that the operator configures",
    "imagehub/operations/notify.py": "the mail server that the operator configures",
    "imagehub/error_reports.py": "the Sentry server that the operator configures",
    "generation/demo.py": "our own server, on loopback",
    "training/pipelines/loading.py": "the model hub that the operator configures",
    "training/labeler/networks.py": "the model hub that the operator configures",
    "training/starter/publishing.py": "a folder of this machine, read by the hub's library",
}


def sources() -> Iterator[Path]:
    for folder in ("imagehub", "albums", "training", "scraping", "generation"):
        for path in (settings.BASE_DIR / folder).rglob("*.py"):
            if not {"tests", "migrations"} & set(path.parts):
                yield path
    yield settings.BASE_DIR / "manage.py"


def ways_out(source: str) -> set[str]:
    """Return what in a source could make a request."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {alias.name for alias in node.names} & CALLS
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            found |= {name} & CALLS
            if (
                name in {"import_module", "__import__"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                names = [str(node.args[0].value)]
        elif isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
            found |= {str(node.elts[0].value).rpartition("/")[2]} & PROGRAMS
        parts = {
            ".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)
        }
        found |= parts & MODULES
    return found


def is_allowed(path: str) -> bool:
    return any(path == allowed or path.startswith(f"{allowed}/") for allowed in ALLOWED)


def test_nothing_makes_requests_but_what_is_allowed():
    bypasses = {}
    for path in sources():
        name = path.relative_to(settings.BASE_DIR).as_posix()
        if (found := ways_out(path.read_text())) and not is_allowed(name):
            bypasses[name] = found

    assert bypasses == {}


def test_what_is_allowed_still_needs_it():
    used = {
        path.relative_to(settings.BASE_DIR).as_posix() for path in sources() if ways_out(path.read_text())
    }

    for allowed in ALLOWED:
        if (settings.BASE_DIR / allowed).exists():
            assert any(path == allowed or path.startswith(f"{allowed}/") for path in used), allowed


@pytest.mark.parametrize(
    "source",
    [
        *("import httpx2", "import httpx as h", "from requests import get", "import urllib.request as r"),
        *(
            "from urllib import request",
            "from http import client",
            "import aiohttp.client",
            "from boto3 import x",
        ),
        *("def f():\n    import urllib3.util", "import importlib\nimportlib.import_module('httpx.x')"),
        *("import socket\nsocket.create_connection(('a', 80))", "from socket import create_connection as c"),
        *("asyncio.open_connection('a', 80)", "model.from_pretrained(x)", "subprocess.run(['curl', x])"),
        *("subprocess.run(['/usr/bin/wget', x])", "s.connect_ex(x)", "from scrapy import Spider"),
    ],
)
def test_a_bypass_is_seen(source):
    assert ways_out(source)


@pytest.mark.parametrize(
    "source",
    [
        "from urllib.parse import urlsplit",
        "from http import HTTPStatus",
        "import socket",
        "requests = 1",
        "import idna",
    ],
)
def test_what_makes_no_requests_is_not(source):
    assert not ways_out(source)
