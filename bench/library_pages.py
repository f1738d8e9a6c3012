"""A program that asks for pages of a library in its own process, and prints how long they took and what they cost.

``python -m bench.library_pages 1000000 ROUNDS`` works on the instance that the environment names, which
``bench.library_rows`` has filled. What it prints is one line of JSON: for each page its milliseconds and queries.
"""

import json
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import django

from bench.library_rows import COMMON, PREFIX, RARE, SECOND, created_at, image_id

SEARCHES = {
    "a word of half of them": COMMON,
    "a word of one": RARE,
    "two words": f"{COMMON} {SECOND}",
    "two words, one of them of one image": f"{COMMON} {RARE}",
    "a beginning": PREFIX,
    "a word without another": f"{COMMON} -{SECOND}",
}


def main() -> None:
    count, rounds = int(sys.argv[1]), int(sys.argv[2])
    django.setup()
    from django.conf import settings
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    settings.ALLOWED_HOSTS = ["testserver"]
    client = Client()

    def get(url: str) -> dict[str, Any]:
        response = client.get(url)
        if response.status_code != 200:
            raise SystemExit(f"{url} answered {response.status_code}")
        return response.json()

    measured = {}
    for name, url in pages(count, get).items():
        get(url)
        with CaptureQueriesContext(connection) as queries:
            get(url)
            asked = len(queries)  # before other requests clear the log
        times = []
        for _ in range(rounds):
            started_at = time.perf_counter()
            get(url)
            times.append(1000 * (time.perf_counter() - started_at))
        measured[name] = {"times": times, "queries": asked}
    print(json.dumps(measured))


def pages(count: int, get: Any) -> dict[str, str]:
    """Return the addresses of pages: the first, one in the middle of the rows that share one time, and the last."""
    half = (created_at(3 * count // 4, count), image_id(3 * count // 4))
    found = {
        "first page": "/api/images",
        "middle page": _behind("/api/images", half, get),
        "last page": _last("/api/images", get),
    }
    for what, text in SEARCHES.items():
        url = f"/api/images?{urlencode({'q': text})}"
        found[f"search, {what}"] = url
        if get(url)["next"]:
            found[f"search, {what}, middle"] = _behind(url, (count // 2,), get)
    return found


def _behind(url: str, key: tuple[Any, ...], get: Any) -> str:
    """Return the page behind a key, as if somebody had come to it page by page."""
    from imagehub.api.pagination import Cursor

    return _with_cursor(url, Cursor(is_backward=False, key=key), get)


def _last(url: str, get: Any) -> str:
    from imagehub.api.pagination import Cursor

    return _with_cursor(url, Cursor(is_backward=True), get)


def _with_cursor(url: str, cursor: Any, get: Any) -> str:
    from imagehub.api.pagination import _SIGNER

    genuine = parse_qs(urlsplit(get(url)["next"]).query)["cursor"][0]
    name_of_list = _SIGNER.unsign_object(genuine)[2]
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'cursor': cursor.encode(of=name_of_list)})}"


if __name__ == "__main__":
    main()
