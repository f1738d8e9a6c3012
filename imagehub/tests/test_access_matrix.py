"""Walks every route with every method as every kind of caller, and compares with :mod:`imagehub.tests.access_matrix`."""

import json
from dataclasses import dataclass

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse
from django.test import Client

from imagehub.accounts.models import AuditEntry, Scope
from imagehub.accounts.tests.factories import ApiTokenFactory
from imagehub.tests import world
from imagehub.tests.access_matrix import (
    ADMIN_EXTRAS,
    ADMIN_MODELS,
    ADMIN_PAGES,
    MATRIX,
    METHODS,
    SAFE,
    Access,
    Role,
)
from imagehub.tests.routes import Route, walk

pytestmark = pytest.mark.django_db

ROUTES = {route.path: route for route in walk()}
REFUSALS = {401, 403, 404, 405, 500}
ALLOWED = "allowed"


@dataclass(frozen=True)
class Caller:
    name: str
    role: Role
    user: User | None = None
    scopes: tuple[str, ...] | None = None

    def client(self) -> Client:
        client = Client(raise_request_exception=False)
        if self.scopes is not None:
            secret = f"ih_{self.name}"
            ApiTokenFactory(user=self.user, scopes=list(self.scopes), secret=secret)
            client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
        elif self.user:
            client.force_login(self.user)
        return client


@pytest.fixture
def here(google) -> world.World:
    return world.build()


def people(here: world.World) -> list[Caller]:
    return [
        Caller("nobody", Role.EVERYBODY),
        Caller("a user", Role.SIGNED_IN, here.visitor),
        Caller("staff", Role.STAFF, here.staff),
        Caller("a superuser", Role.SUPERUSER, here.superuser),
    ]


def programs(here: world.World) -> list[Caller]:
    of_staff = [Caller(f"staff-{scope}", Role.STAFF, here.staff, (scope,)) for scope in Scope.values]
    return [
        *of_staff,
        Caller("staff-nothing", Role.STAFF, here.staff, ()),
        Caller("user-admin", Role.SIGNED_IN, here.visitor, (Scope.ADMIN,)),
    ]


def belongs_to_a_model(route: Route) -> bool:
    _, _, rest = route.path.partition("admin/")
    return any(rest.startswith(f"{label.replace('.', '/')}/") for label in ADMIN_MODELS | registered())


def registered() -> dict[str, type]:
    return {model._meta.label_lower: model for model in admin.site._registry}


def test_every_route_has_a_row_and_every_row_a_route():
    known = set(MATRIX) | set(ADMIN_PAGES)
    found = {path for path, route in ROUTES.items() if not belongs_to_a_model(route)}

    assert found - known == set(), "routes without a row in the access matrix"
    assert known - found == set(), "rows without a route"
    assert set(registered()) == set(ADMIN_MODELS)


def wanted(access: Access, method: str, caller: Caller, target: world.Target) -> int | str:
    """Return what the matrix says of a call, in the order in which calls are refused."""
    role = access.read if method in SAFE else access.write
    if caller.role < role:
        return 401 if caller.user is None else 403
    asks_nobody = access.is_page or access.write == Role.EVERYBODY
    if caller.scopes is not None and not asks_nobody:
        opening = set(Scope) if method in SAFE else {access.scope, Scope.ADMIN}
        if not opening & set(caller.scopes):
            return 403
    if method not in access.methods:
        return 405
    user = None if access.is_page and caller.scopes is not None else caller.user
    if not target.is_told(user) and method != "OPTIONS":
        return 404
    return ALLOWED


def answer(response: HttpResponse) -> int | str:
    return response.status_code if response.status_code in REFUSALS else ALLOWED


@pytest.mark.once
@pytest.mark.parametrize("path", MATRIX)
def test_lets_everybody_do_what_the_matrix_says_and_nothing_else(path, here):
    access, route = MATRIX[path], ROUTES[path]
    targets = here.targets[access.of] if access.of else {"": world.Target("", lambda _: True)}
    wrong, unrecorded = [], []
    for caller in people(here) + programs(here):
        client = caller.client()
        for method in METHODS:
            for sort, target in targets.items():
                call = f"{method} /{path} {sort} as {caller.name}"
                url = route.url(**dict.fromkeys(route.parameters, target.pk))
                with transaction.atomic():  # each call finds everything as it was
                    response = client.generic(method, url, *_body(access, method))
                    is_lacking = _is_change(access, caller, method, response) and not _is_recorded(response)
                    transaction.set_rollback(True)
                expected, got = wanted(access, method, caller, target), answer(response)
                if expected != got:
                    wrong.append(f"{call}: {got} ({response.status_code}), not {expected}")
                if is_lacking:
                    unrecorded.append(call)

    assert wrong == []
    assert unrecorded == []


def _body(access: Access, method: str) -> tuple[str, ...]:
    return () if method in SAFE else (json.dumps(access.bodies.get(method, {})), "application/json")


def _is_change(access: Access, caller: Caller, method: str, response: HttpResponse) -> bool:
    if access.is_page and caller.scopes is not None:  # who knows no tokens knows no caller
        return False
    return caller.role >= Role.STAFF and method not in SAFE and 200 <= response.status_code < 300


def _is_recorded(response: HttpResponse) -> bool:
    return AuditEntry.objects.filter(request_id=response["X-Request-ID"]).exists()


def _admin_answer(response: HttpResponse) -> str:
    if response.status_code == 302 and response["Location"].startswith("/admin/login/"):
        return "sign in first"
    return "refused" if response.status_code == 403 else ALLOWED


@pytest.mark.parametrize("path", ADMIN_PAGES)
def test_pages_of_the_admin(path, here):
    url = ROUTES[path].url(app_label="albums", content_type_id=1, object_id=1, url="nothing")
    for caller in people(here):
        expected = ALLOWED
        if caller.role < ADMIN_PAGES[path]:
            expected = "refused" if caller.role >= Role.STAFF else "sign in first"
        for method in ("GET",) if ADMIN_PAGES[path] == Role.NOBODY else ("GET", "POST"):
            client = caller.client()  # one of these pages signs out
            assert _admin_answer(client.generic(method, url)) == expected, f"{method} as {caller.name}"


PERMISSIONS = {
    "": {"GET": "view", "POST": "view"},
    "add/": {"GET": "add", "POST": "add"},
    "<object_id>/change/": {"GET": "view", "POST": "change"},
    "<object_id>/delete/": {"GET": "delete", "POST": "delete"},
}
UNASKED = {"<object_id>/history/", "<object_id>/"}
"""With an id that does not exist these lead elsewhere before they ask who is there."""


@pytest.mark.parametrize("label", ADMIN_MODELS)
def test_pages_of_models_in_the_admin(label, here):
    prefix = f"admin/{label.replace('.', '/')}/"
    routes = {path.removeprefix(prefix): route for path, route in ROUTES.items() if path.startswith(prefix)}
    extras = ADMIN_EXTRAS.get(label, {})
    assert set(routes) == {*PERMISSIONS, *UNASKED, *extras}
    allowed = dict(zip((Role.STAFF, Role.SUPERUSER), ADMIN_MODELS[label], strict=True))
    unknown = "999999" if label == "auth.user" else "00000000-0000-0000-0000-000000000000"

    for caller in people(here):
        client = caller.client()
        for rest, route in routes.items():
            for method in ("GET", "POST"):
                needed = extras.get(rest) or PERMISSIONS.get(rest, {}).get(method, "")
                expected = "sign in first"
                if caller.role >= Role.STAFF:
                    expected = ALLOWED if needed in {"", *allowed[caller.role].split()} else "refused"
                response = client.generic(method, route.url(object_id=unknown, id=unknown))
                assert _admin_answer(response) == expected, f"{method} /{route.path} as {caller.name}"


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_cannot_be_smuggled_in(here, header):
    client = Caller("staff", Role.STAFF, here.staff).client()
    url = f"/api/jobs/{here.targets['job']['waiting'].pk}"

    assert client.get(url, headers={header: "DELETE"}).json()["status"] == "queued"
    assert client.post(url, {"_method": "DELETE"}, headers={header: "DELETE"}).status_code == 405
    assert client.get(url).json()["status"] == "queued"
