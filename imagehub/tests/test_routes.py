"""Are the routes of all apps there, and does each path lead where it says?"""

from importlib import import_module
from importlib.util import find_spec

import pytest
from django.apps import apps
from django.conf import settings
from django.test import Client
from django.urls import resolve

from imagehub.accounts.tests.factories import UserFactory
from imagehub.tests import world
from imagehub.tests.routes import walk

ROUTES = list(walk())
OWN = [app.name for app in apps.get_app_configs() if app.name.partition(".")[0] in settings.OWN_PACKAGES]


def url_modules() -> list[str]:
    """Return the modules with routes that our apps have."""
    found = []
    for app in OWN:
        for name in (f"{app}.urls", f"{app}.api.urls"):
            if find_spec(name.rpartition(".")[0]) and find_spec(name) and name != settings.ROOT_URLCONF:
                found.append(name)
    return found


@pytest.mark.parametrize("module", url_modules())
def test_the_routes_of_every_app_are_registered(module):
    registered = {route.callback for route in ROUTES}

    assert {pattern.callback for pattern in import_module(module).urlpatterns} <= registered


def test_the_apps_with_routes_are_found():
    assert {
        "imagehub.accounts.api.urls",
        "imagehub.operations.api.urls",
        "albums.urls",
        "albums.api.urls",
    } <= set(url_modules())


def test_a_path_without_parameters_is_never_taken_for_an_id():
    for route in ROUTES:
        if not route.parameters:
            assert resolve(route.url()).func == route.callback, route.path


def test_no_two_routes_have_the_same_path():
    paths = [route.path for route in ROUTES]

    assert len(set(paths)) == len(paths)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/api/images/newest", "/api/albums/render", "/api/images/1", "/api/jobs/stats"]
)
def test_a_word_is_no_id(path):
    client = Client()
    client.force_login(UserFactory(staff=True))

    response = client.get(path)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.django_db
class TestErrorsAreProblems:
    """Under ``/api/``, and there alone."""

    @pytest.fixture
    def staff(self):
        client = Client(raise_request_exception=False)
        client.force_login(UserFactory(staff=True))
        return client

    def problem(self, response, status, code):
        assert response.status_code == status
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["code"] == code
        assert response.json()["request_id"] == response["X-Request-ID"]

    @pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/images/", "/api/admin/nothing"])
    def test_404(self, staff, path):
        self.problem(staff.get(path), 404, "not_found")

    @pytest.mark.parametrize(
        "path", ["/api/images", "/api/health", "/api/schema/", "/api/docs/", "/api/auth/tokens"]
    )
    def test_405(self, staff, path):
        response = staff.patch(path)

        self.problem(response, 405, "method_not_allowed")
        assert "GET" in response["Allow"]

    def test_500(self, staff, monkeypatch):
        world.plant_bug(monkeypatch, "a bug")

        self.problem(staff.get("/api/images"), 500, "server_error")

    def test_pages_answer_people(self, staff):
        assert "json" not in staff.get("/nothing")["Content-Type"]
