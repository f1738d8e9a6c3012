"""The door of the admin: who is stopped, for how long, and who is not."""

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
PASSWORD = "a long enough password"
MALLORY, OWNER = "203.0.113.66", "198.51.100.7"


@pytest.fixture(autouse=True)
def _root(set_config, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the slow one is Django's
    set_config(
        "rate_limits: {sign_in: {limit: 3, window_seconds: 3600}, sign_in_wide: {limit: 6, window_seconds: 3600},"
        " sign_in_name: {limit: 8, window_seconds: 3600}}"
    )
    User.objects.create_superuser("root", password=PASSWORD)


@pytest.fixture
def attempt(client):
    def post(password="wrong", name="root", address=MALLORY):
        client.logout()
        return client.post(LOGIN, {"username": name, "password": password}, REMOTE_ADDR=address)

    return post


def test_the_right_password_opens_as_often_as_it_is_typed(attempt, client):
    for _ in range(8):
        assert attempt(PASSWORD).status_code == 302
    assert client.get("/admin/").status_code == 200


def test_failures_lock_the_name_for_the_address_and_say_for_how_long(attempt, client):
    for _ in range(3):
        assert attempt().status_code == 200
    locked = attempt(PASSWORD)

    assert locked.status_code == 429
    assert 0 < int(locked["Retry-After"]) <= 3600
    assert (locked["RateLimit-Limit"], locked["RateLimit-Remaining"]) == ("3", "0")
    assert "Too many failed attempts" in locked.text
    assert client.get("/admin/").status_code == 302


def test_the_owner_gets_in_from_elsewhere(attempt):
    for _ in range(3):
        attempt()

    assert attempt().status_code == 429
    assert attempt(PASSWORD, address=OWNER).status_code == 302


def test_other_names_are_free_until_the_address_has_failed_too_often(attempt):
    for number in range(6):
        assert attempt(name=f"name{number}").status_code == 200

    assert attempt(PASSWORD).status_code == 429
    assert attempt(PASSWORD, address=OWNER).status_code == 302


def test_a_name_is_locked_everywhere_when_many_addresses_try_it(attempt):
    for number in range(8):
        assert attempt(address=f"203.0.113.{number}").status_code == 200

    assert attempt(PASSWORD, address=OWNER).status_code == 429


def test_one_address_alone_cannot_lock_a_name_everywhere(attempt, set_config):
    set_config(
        "rate_limits: {sign_in: {limit: 100, window_seconds: 3600}, sign_in_wide: {limit: 6, window_seconds: 3600},"
        " sign_in_name: {limit: 8, window_seconds: 3600}}"
    )
    for _ in range(20):
        attempt()

    assert attempt().status_code == 429
    assert attempt(PASSWORD, address=OWNER).status_code == 302


def test_refused_attempts_prolong_nothing(attempt):
    for _ in range(20):
        attempt()

    assert attempt(name="other").status_code == 200


@pytest.mark.parametrize("spelling", ["ROOT", "ｒｏｏｔ", " root "])
def test_a_name_written_differently_gets_no_more_attempts(attempt, spelling):
    for _ in range(3):
        attempt()

    assert attempt(name=spelling).status_code == 429


def test_known_and_unknown_names_read_the_same(attempt):
    User.objects.create_user("visitor", password=PASSWORD)
    pages = [
        attempt(name=name, password=password).text.replace(name, "NAME")
        for name, password in (("root", "wrong"), ("nobody", "wrong"), ("visitor", PASSWORD))
    ]

    errors = {page.split('class="errornote">')[1].split("</p>")[0] for page in pages}
    assert len(errors) == 1


def test_failures_are_told_to_whoever_listens(attempt):
    seen = []

    def receiver(credentials, **_):
        seen.append(credentials["username"])

    user_login_failed.connect(receiver)
    try:
        attempt()
    finally:
        user_login_failed.disconnect(receiver)

    assert seen == ["root"]


def test_the_session_id_changes(client):
    client.get("/admin/login/")
    client.session["something"] = 1
    client.session.save()
    before = client.cookies.get("sessionid")
    client.post(LOGIN, {"username": "root", "password": PASSWORD})

    assert client.cookies["sessionid"].value != (before and before.value)
    assert client.cookies["sessionid"]["httponly"]
