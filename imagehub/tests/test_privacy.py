"""Walks every GET as those who are not staff, in a system full of private things, and looks for any of them."""

import re
import uuid

import pytest
from django.conf import settings as django_settings
from django.test import Client

from imagehub.roots import media_root, models_root
from imagehub.tests import world
from imagehub.tests.access_matrix import ADMIN_MODELS, MATRIX
from imagehub.tests.routes import Route, walk

pytestmark = pytest.mark.django_db

ROUTES = list(walk())
SYSTEM_PATH = re.compile(rb"/(?:srv|home|opt|root|tmp|usr|etc|mnt|data)/[\w.]")
EARLY = "0001-01-01T00:00:00%2B23:59"
ID = "01a212ab-e42f-7749-9fe9-e2062007175c"
QUERIES = (
    "",
    "?limit=0",
    "?cursor=x",
    "?size=7",
    "?album=x",
    "?colour=red",
    "?after=x",
    "?format=nothing",
    f"?created_after={EARLY}",
    f"?after={EARLY}~{ID}",
    f"?after={10**30}~{ID}",
    "?seed=1e999",
    f"?seed={10**30}",
)


@pytest.fixture
def here(set_config) -> world.World:
    set_config("storage: {minimum_free_bytes: 0}\nnonsense: /srv/imagehub/secret-folder\n")
    return world.build()


@pytest.fixture
def private(here, settings) -> list[str]:
    roots = [
        settings.VAR_DIR,
        media_root(),
        models_root(),
        settings.CONFIG_FILE,
        django_settings.BASE_DIR,
    ]
    people = [user.email for user in (here.owner, here.staff, here.superuser)]
    words = [
        world.PRIVATE_PROMPT,
        world.HOST,
        world.LORA_FILE,
        "secret-folder",
        "Traceback",
        "zeppelin-rank16",
    ]
    return [*map(str, roots), *people, *words]


@pytest.fixture
def outsiders(here) -> dict[str, Client]:
    anonymous, visitor = Client(raise_request_exception=False), Client(raise_request_exception=False)
    visitor.force_login(here.visitor)
    return {"nobody": anonymous, "a user": visitor}


def urls(route: Route, here: world.World) -> list[str]:
    access = MATRIX.get(route.path)
    ids = (
        [target.pk for target in here.targets[access.of].values()] if access and access.of else [uuid.uuid4()]
    )
    if not route.parameters:
        return [route.url()]
    return [route.url(**dict.fromkeys(route.parameters, pk)) for pk in [*ids, "no-id", "..%2fnothing"]]


def told(response) -> bytes:
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return str(response.headers).encode() + body


def leaks(response, private: list[str]) -> list[str]:
    text = told(response)
    found = [word for word in private if word.encode() in text]
    return found + [match.decode() for match in SYSTEM_PATH.findall(text)]


def test_tells_nobody_who_is_not_staff_anything_private(here, private, outsiders):
    found = {}
    for route in ROUTES:
        for url in urls(route, here):
            for name, client in outsiders.items():
                for query in QUERIES if route.path in MATRIX else [""]:
                    response = client.get(url + query)
                    assert response.status_code < 500, url + query
                    if leaked := leaks(response, private):
                        found[f"{url}{query} as {name}"] = leaked

    assert found == {}


def test_tells_it_to_staff_so_that_the_walk_looks_for_what_is_there(here):
    staff = Client()
    staff.force_login(here.staff)
    text = b""
    for path, access in MATRIX.items():
        if "GET" in access.methods and not access.is_page:
            for url in urls(next(route for route in ROUTES if route.path == path), here):
                text += told(staff.get(url))
    for label in ADMIN_MODELS:
        text += told(staff.get(f"/admin/{label.replace('.', '/')}/"))

    for word in (world.PRIVATE_PROMPT, world.OWNER, world.HOST, str(media_root())):
        assert word.encode() in text, word


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_tells_nothing_private_in_refusals_either(here, private, outsiders, method):
    found = {}
    for path in MATRIX:
        for url in urls(next(route for route in ROUTES if route.path == path), here):
            for name, client in outsiders.items():
                response = client.generic(method, url, "{", content_type="application/json")
                assert response.status_code < 500
                if leaked := leaks(response, private):
                    found[f"{method} {url} as {name}"] = leaked

    assert found == {}


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/nothing", "/api/images/..%2f..%2fetc", "/static/nothing", "/media/x"]
)
def test_says_nothing_of_what_is_not_there(private, outsiders, path):
    for client in outsiders.values():
        response = client.get(path)
        assert response.status_code == 404
        assert leaks(response, private) == []


@pytest.mark.parametrize("path", ["/api/images", "/"])
def test_says_nothing_of_a_bug(private, outsiders, monkeypatch, path):
    world.plant_bug(monkeypatch, f"{world.LORA_FILE} {world.PRIVATE_PROMPT} {world.HOST}")

    for client in outsiders.values():
        response = client.get(path)
        assert response.status_code == 500
        assert leaks(response, private) == []


def test_says_nothing_of_a_file_that_is_missing(here, private, outsiders, settings):
    for file in media_root().rglob("*.png"):
        file.unlink()

    for client in outsiders.values():
        for end in ("file", "thumbnail"):
            response = client.get(f"/api/images/{here.targets['image']['public'].pk}/{end}")
            assert response.status_code == 404
            assert leaks(response, private) == []
