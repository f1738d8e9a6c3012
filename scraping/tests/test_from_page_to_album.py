"""The whole way, as it ships: a request to the web server, a Django-Q cluster, the crawler, and the album that everybody may ask for."""

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
from django.conf import settings as django_settings

from imagehub.accounts.services import create_token
from scraping.tests.sites import Site, after_refusals, drawing

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.usefixtures("quick")]

HOSTS, PICTURES = 6, 8


class Api:
    """Speaks to the server as a program does."""

    def __init__(self, base: str, token: str) -> None:
        self._base, self._token = base, token

    def __call__(self, method: str, path: str, body: object = None) -> dict:
        request = urllib.request.Request(
            self._base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())


@pytest.fixture
def hosts():
    sites = [Site(f"127.0.1.{number + 1}") for number in range(HOSTS)]
    for number, site in enumerate(sites):
        numbers = range(number * PICTURES, (number + 1) * PICTURES)
        site.show(
            "/",
            "".join(f'<a href=/{n}.png><img src=/small/{n}.png alt="Card {n}"></a>' for n in numbers)
            + "<img src=/icon.png><a href=/missing>more</a>",
        )
        site.show("/icon.png", drawing(1000, (32, 32)))
        for n in numbers:
            site.show(f"/{n}.png", drawing(n))
    sites[1].pages["/8.png"] = after_refusals(1, sites[1].pages["/8.png"], Retry_After="1")
    sites[2].show("/robots.txt", "User-agent: *\nDisallow: /17.png", "text/plain")
    yield sites
    for site in sites:
        site.close()


@pytest.fixture
def cluster(process_env):
    process = subprocess.Popen(
        [sys.executable, str(django_settings.BASE_DIR / "manage.py"), "qcluster", "scraping"],
        env=process_env | {"IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "127.0.0.0/8"},
    )
    yield process
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def process_env(process_env):
    return process_env | {"IMAGEHUB_SCRAPING_ALLOW_PRIVATE": "127.0.0.0/8"}


def test_pages_of_several_hosts_become_an_album(hosts, server, cluster, staff):
    _, secret = create_token(staff, name="frontend", expires_at=None)
    api = Api(server[0], secret)

    started = api(
        "POST", "/api/scraping/start", {"urls": [site.url() for site in hosts], "album_name": "Cards"}
    )
    path = f"/api/scraping/jobs/{started['id']}"
    deadline = time.monotonic() + 120
    while (job := api("GET", path))["status"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    total = HOSTS * PICTURES
    assert (job["status"], job["error"]) == ("completed", None)
    assert job["images_saved"] == total - 1
    items = api("GET", f"{path}/items?limit=200")["results"]
    counts = Counter(item["state"] for item in items)
    assert counts == {state: count for state, count in job["counts"].items() if count}
    assert counts["saved"] == total - 1
    assert counts["robots"] == 1
    assert [item["url"] for item in items if item["state"] == "robots"] == [hosts[2].url("/17.png")]
    images = api("GET", f"/api/images?album={job['album']}&limit=200")["results"]
    assert {image["source"]["kind"] for image in images} == {"scrape"}
    assert len(images) == total - 1
    refused, again = hosts[1].times("/8.png")
    assert again - refused >= 1.0
    assert all(site.peak <= 2 for site in hosts)
    assert "/17.png" not in hosts[2].paths()
