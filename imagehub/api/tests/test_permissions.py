import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from imagehub.accounts.tests.factories import UserFactory
from imagehub.api.permissions import StaffOnly, StaffOrReadOnly

CALLERS = {
    "anonymous": AnonymousUser(),
    "signed-in": UserFactory.build(),
    "staff": UserFactory.build(staff=True),
    "deactivated staff": UserFactory.build(staff=True, deactivated=True),
}


def allowed(permission, method):
    names = set()
    for name, user in CALLERS.items():
        request = RequestFactory().generic(method, "/api/")
        request.user = user
        if permission().has_permission(request, None):
            names.add(name)
    return names


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_staff_only_lets_active_staff_in(method):
    assert allowed(StaffOnly, method) == {"staff"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_staff_or_read_only_lets_everybody_look(method):
    assert allowed(StaffOrReadOnly, method) == set(CALLERS)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_staff_or_read_only_lets_active_staff_change(method):
    assert allowed(StaffOrReadOnly, method) == {"staff"}


@pytest.mark.django_db
@pytest.mark.urls("imagehub.api.tests.urls")
class TestOverHttp:
    def test_who_is_not_signed_in_gets_a_401(self, client):
        response = client.post("/api/body")

        assert response.status_code == 401
        assert response["WWW-Authenticate"].startswith("Bearer")

    def test_who_is_not_staff_gets_a_403(self, client):
        client.force_login(UserFactory())

        response = client.post("/api/body")

        assert response.status_code == 403
        assert response.json()["detail"] == "Only staff may do this."

    def test_staff_get_through(self, client):
        client.force_login(UserFactory(staff=True))

        assert client.post("/api/body", {}, content_type="application/json").status_code == 200

    def test_a_session_needs_a_csrf_token(self, client):
        client.handler.enforce_csrf_checks = True
        client.force_login(UserFactory(staff=True))

        assert client.post("/api/body", {}, content_type="application/json").status_code == 403
