"""The whole flow against a provider on loopback: who is let in, who is not, and where it ends."""

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.internal.statekit import STATE_TTL, STATES_SESSION_KEY
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.core.signals import request_started
from django.test import Client
from django.urls import NoReverseMatch, reverse

from imagehub.accounts.google import local_path
from imagehub.accounts.staff_list import GROUP, withdraw_before_first_request, withdraw_from_unlisted
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory

pytestmark = pytest.mark.django_db
LOGIN, CALLBACK, DONE, ME, LOGOUT = (
    f"/api/auth/{name}" for name in ("login", "google/callback", "done", "me", "logout")
)
PASSWORD = "a long enough password"


def local(url: str) -> str:
    """What of an address a test client asks for."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def sign_in(client, google, link="allow", **query):
    """Go all the way; return the answer to the callback."""
    started = client.get(LOGIN, query)
    assert started.status_code == 302
    return client.get(local(google.consent(started["Location"], link)))


def outcome(response) -> str:
    assert response.status_code == 302
    assert urlsplit(response["Location"]).path == DONE
    return parse_qs(urlsplit(response["Location"]).query)["status"][0]


def me(client) -> dict:
    return client.get(ME).json()


@pytest.fixture
def signals():
    seen = []

    def listen(signal, name):
        def receiver(**arguments):
            seen.append((name, arguments.get("credentials") or arguments["user"].email))

        signal.connect(receiver, weak=False, dispatch_uid="test")

    kinds = {"in": user_logged_in, "out": user_logged_out, "failed": user_login_failed}
    for name, signal in kinds.items():
        listen(signal, name)
    yield seen
    for signal in kinds.values():
        signal.disconnect(dispatch_uid="test")


class TestOff:
    @pytest.mark.parametrize("path", [LOGIN, CALLBACK, DONE, "/api/auth/google/%2F?code=1"])
    def test_there_is_nothing(self, client, path):
        response = client.get(path)

        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"

    def test_no_page_speaks_of_it(self, client):
        assert me(client)["login_url"] is None
        for page in ("/", "/admin/login/"):
            response = client.get(page)
            assert "auth/login" not in response.text
            assert "Google" not in response.text
            assert response["Cross-Origin-Opener-Policy"] == "same-origin"


class TestSignIn:
    def test_a_new_person_becomes_a_user(self, client, google, signals):
        answer = sign_in(client, google)

        assert outcome(answer) == "success"
        who = me(client)
        del who["csrf_token"]
        assert who == {
            "authenticated": True,
            "role": "user",
            "email": "ada@example.com",
            "name": "Ada L",
            "is_staff": False,
            "is_superuser": False,
            "login_url": LOGIN,
        }
        assert signals == [("in", "ada@example.com")]
        assert not User.objects.get().has_usable_password()
        assert not SocialToken.objects.exists()

    def test_the_same_person_is_the_same_user(self, client, google):
        for browser in (client, Client()):
            assert outcome(sign_in(browser, google)) == "success"

        assert User.objects.count() == SocialAccount.objects.count() == 1

    def test_the_callback_is_the_one_google_knows(self, client, google):
        query = parse_qs(urlsplit(client.get(LOGIN)["Location"]).query)

        assert reverse("google_callback") == CALLBACK
        assert query["redirect_uri"] == [f"http://testserver{CALLBACK}"]

    def test_the_session_id_changes_and_the_cookie_is_careful(self, client, google):
        client.get(LOGIN)
        before = client.cookies["sessionid"].value
        sign_in(client, google)

        cookie = client.cookies["sessionid"]
        assert cookie.value != before
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"

    def test_somebody_else_takes_over_the_browser(self, client, google, signals):
        sign_in(client, google)
        google.person |= {"sub": "1002", "email": "bob@example.com"}
        sign_in(client, google)

        assert me(client)["email"] == "bob@example.com"
        assert [name for name, _ in signals] == ["in", "out", "in"]

    def test_a_user_who_is_there_is_linked_and_keeps_the_password(self, client, google):
        user = User.objects.create_superuser("root", "ADA@example.com", PASSWORD)
        sign_in(client, google)

        assert me(client)["role"] == "superuser"
        user.refresh_from_db()
        assert user.check_password(PASSWORD)

    def test_too_many_are_refused(self, client, google, set_config):
        set_config("rate_limits: {sign_in: {limit: 2, window_seconds: 3600}}")

        assert client.get(LOGIN)["RateLimit-Remaining"] == "1"
        client.get(LOGIN)
        refused = client.get(LOGIN)

        assert refused.status_code == 429
        assert refused.json()["code"] == "rate_limited"
        assert int(refused["Retry-After"]) > 0
        assert refused["RateLimit-Remaining"] == "0"


class TestRefused:
    def test_cancelled_consent(self, client, google):
        assert outcome(sign_in(client, google, "cancel")) == "cancelled"
        assert not me(client)["authenticated"]

    @pytest.mark.parametrize(
        "claim",
        [{"email_verified": False}, {"email": ""}, {"nonce": "another"}, {"email": "ad\uff41@example.com"}],
    )
    @pytest.mark.parametrize("is_known", [False, True])
    def test_an_address_that_is_not_verified(self, client, google, claim, is_known, signals):
        if is_known:
            User.objects.create_superuser("root", "ada@example.com", PASSWORD)
        google.changes = claim

        assert outcome(sign_in(client, google)) == "error"
        assert not me(client)["authenticated"]
        assert not SocialAccount.objects.exists()
        assert [name for name, _ in signals] == ["failed"]

    def test_an_address_that_only_looks_like_that_of_another(self, client, google, settings):
        settings.STAFF_EMAILS = frozenset({"kate@example.com"})
        kate = User.objects.create_superuser("kate@example.com", "kate@example.com", PASSWORD)
        google.changes = {"email": "\u212aate@example.com"}  # in lower case the Kelvin sign is a k

        assert outcome(sign_in(client, google)) == "error"
        assert not SocialAccount.objects.filter(user=kate).exists()

    def test_an_address_that_was_verified_once(self, client, google):
        sign_in(client, google)
        google.changes = {"email_verified": False}
        other = Client()

        assert outcome(sign_in(other, google)) == "error"
        assert not me(other)["authenticated"]

    @pytest.mark.parametrize(
        "claim",
        [{"aud": "another"}, {"iss": "https://evil.example"}, {"exp": 1}, {"sub": ""}, {"sub": "1" * 500}],
    )
    def test_a_token_that_is_not_for_us(self, client, google, claim):
        google.changes = claim

        assert outcome(sign_in(client, google)) == "error"
        assert not me(client)["authenticated"]
        assert not User.objects.exists()

    def test_a_deactivated_user_by_address_and_by_account(self, client, google):
        user = UserFactory(username="ada@example.com", deactivated=True)
        assert outcome(sign_in(client, google)) == "error"

        User.objects.update(is_active=True)
        assert outcome(sign_in(client, google)) == "success"
        User.objects.update(is_active=False)

        assert not me(client)["authenticated"]
        assert outcome(sign_in(Client(), google)) == "error"
        assert SocialAccount.objects.get().user == user

    def test_an_address_of_two_users(self, client, google):
        UserFactory(username="one", email="ada@example.com")
        UserFactory(username="two", email="ada@example.com")

        assert outcome(sign_in(client, google)) == "error"
        assert not me(client)["authenticated"]

    def test_a_provider_that_is_gone(self, client, google):
        target = google.consent(client.get(LOGIN)["Location"])
        google.grants.clear()

        assert outcome(client.get(local(target))) == "error"
        assert google.refusals == ["code"]


class TestState:
    @pytest.mark.parametrize("query", ["", "?code=1", "?code=1&state=", "?code=1&state=forged", "?state=x"])
    def test_none_or_forged(self, client, google, query):
        client.get(LOGIN)

        assert outcome(client.get(CALLBACK + query)) == "error"
        assert not me(client)["authenticated"]

    def test_replayed(self, client, google):
        target = local(google.consent(client.get(LOGIN)["Location"]))
        assert outcome(client.get(target)) == "success"
        client.get(ME)
        client.logout()

        assert outcome(client.get(target)) == "error"
        assert not me(client)["authenticated"]

    def test_of_another_browser(self, client, google):
        target = local(google.consent(client.get(LOGIN)["Location"]))
        victim = Client()
        victim.get(LOGIN)

        assert outcome(victim.get(target)) == "error"
        assert not me(victim)["authenticated"]

    def test_a_code_stolen_from_another_browser(self, client, google):
        stolen = parse_qs(urlsplit(google.consent(client.get(LOGIN)["Location"])).query)["code"][0]
        thief = Client()
        state = parse_qs(urlsplit(thief.get(LOGIN)["Location"]).query)["state"][0]

        assert outcome(thief.get(CALLBACK, {"code": stolen, "state": state})) == "error"
        assert google.refusals == ["verifier"]
        assert not me(thief)["authenticated"]


class TestStaffList:
    def test_listed_people_are_staff_until_they_are_not(self, client, google, settings):
        settings.STAFF_EMAILS = frozenset({"ada@example.com"})
        sign_in(client, google)
        assert me(client)["role"] == "staff"

        settings.STAFF_EMAILS = frozenset()
        sign_in(Client(), google)

        assert me(client)["role"] == "user"  # at once, in the other session as well

    def test_who_leaves_the_list_loses_it_when_a_web_process_starts(self, client, google, settings):
        settings.STAFF_EMAILS = frozenset({"ada@example.com"})
        sign_in(client, google)
        withdraw_from_unlisted()
        assert me(client)["is_staff"]

        settings.STAFF_EMAILS = frozenset({"somebody@example.com"})
        withdraw_from_unlisted()

        assert not me(client)["is_staff"]
        assert not User.objects.filter(groups__name=GROUP).exists()

    def test_staff_made_by_hand_stay(self, client, google, settings):
        UserFactory(username="ada@example.com", staff=True)
        for listed in ({"ada@example.com"}, set()):
            settings.STAFF_EMAILS = frozenset(listed)
            sign_in(client, google)
            withdraw_from_unlisted()
            assert me(client)["is_staff"]

    def test_superusers_are_not_touched(self, client, google, settings):
        User.objects.create_superuser("root", "ada@example.com", PASSWORD)
        settings.STAFF_EMAILS = frozenset({"ada@example.com"})
        sign_in(client, google)
        settings.STAFF_EMAILS = frozenset()
        sign_in(client, google)

        assert me(client)["role"] == "superuser"

    def test_an_unverified_address_makes_nobody_staff(self, client, google, settings):
        settings.STAFF_EMAILS = frozenset({"ada@example.com"})
        google.changes = {"email_verified": False}
        sign_in(client, google)

        assert not User.objects.filter(is_staff=True).exists()


class TestDonePage:
    def test_tells_each_frontend_and_holds_nothing_of_worth(self, client, google, settings):
        settings.FRONTEND_ORIGINS = ["https://app.example.com", "http://localhost:5173"]
        page = client.get(sign_in(client, google)["Location"])

        assert 'data-status="success"' in page.text
        assert 'data-origins="http://testserver https://app.example.com http://localhost:5173"' in page.text
        assert "ada@" not in page.text.lower()
        assert "<style" not in page.text
        assert page.text.count("<script") == page.text.count("<script src=") == 1
        assert page["Cross-Origin-Opener-Policy"] == "unsafe-none"
        assert page["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("query", ["", "?status=success", "?status=<script>", "?status=success&next=/x"])
    def test_believes_no_success_that_is_none(self, client, google, query):
        page = client.get(DONE + query)

        assert page.status_code == 200
        assert 'data-status="error"' in page.text

    def test_every_answer_in_the_popup_keeps_its_opener(self, client, google):
        answers = [client.get(LOGIN), sign_in(client, google), client.get(DONE), client.get(CALLBACK)]

        assert {answer["Cross-Origin-Opener-Policy"] for answer in answers} == {"unsafe-none"}
        assert client.get("/")["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"
        assert client.get("/api/health")["Cross-Origin-Opener-Policy"] == "same-origin"


class TestNext:
    def test_leads_there(self, client, google):
        done = sign_in(client, google, next="/admin/?x=1&y=2")["Location"]

        assert client.get(done)["Location"] == "/admin/?x=1&y=2"

    def test_after_a_failure_it_is_a_link(self, client, google):
        page = client.get(sign_in(client, google, "cancel", next="/albums/1")["Location"])

        assert 'data-status="cancelled"' in page.text
        assert '<a href="/albums/1">' in page.text

    @pytest.mark.parametrize(
        "evil",
        [
            "//evil.com",
            "/\\evil.com",
            "\\\\evil.com",
            "https:evil.com",
            "http:///evil.com",
            "///evil.com",
            "/\t/evil.com",
            "/%09/evil.com",
            "/%2f/evil.com",
            "/%252f/evil.com",
            "/%5cevil.com",
            "%2f%2fevil.com",
            "%2fadmin",
            "javascript:alert(1)",
            "https://host@evil.com",
            "https://host\\.evil.com",
            "https://testserver/",
            "evil",
            "/" + "x" * 4096,
        ],
    )
    def test_never_leads_away(self, client, google, evil):
        done = sign_in(client, google, next=evil)["Location"]

        assert local_path(evil) == "/"
        assert client.get(done)["Location"] == "/"
        assert client.get(DONE, {"status": "success", "next": evil})["Location"] == "/"


class TestMe:
    def test_a_visitor(self, client, google):
        who = me(client)

        assert who.pop("csrf_token")
        assert who == {
            "authenticated": False,
            "role": "anonymous",
            "email": None,
            "name": None,
            "is_staff": False,
            "is_superuser": False,
            "login_url": LOGIN,
        }

    def test_a_token(self, client):
        token = ApiTokenFactory(secret="ih_mine", user=UserFactory(staff=True))
        who = client.get(ME, headers={"Authorization": "Bearer ih_mine"}).json()

        assert (who["role"], who["email"]) == ("staff", token.user.email)

    def test_a_token_that_is_no_good(self, client):
        response = client.get(ME, headers={"Authorization": "Bearer ih_wrong"})

        assert response.status_code == 200
        assert not response.json()["authenticated"]


class TestLogout:
    @pytest.fixture
    def browser(self, google):
        browser = Client(enforce_csrf_checks=True)
        sign_in(browser, google)
        return browser

    def test_ends_the_session(self, browser, signals):
        key = browser.cookies["sessionid"].value
        response = browser.post(LOGOUT, headers={"X-CSRFToken": me(browser)["csrf_token"]})

        assert response.status_code == 204
        assert not me(browser)["authenticated"]
        browser.cookies["sessionid"] = key
        assert not me(browser)["authenticated"]
        assert signals == [("out", "ada@example.com")]

    def test_needs_the_csrf_token_and_post(self, browser):
        for response, status in (
            (browser.post(LOGOUT), 403),
            (browser.post(LOGOUT, headers={"X-CSRFToken": "x" * 64}), 403),
            (browser.get(LOGOUT), 405),
        ):
            assert response.status_code == status
            assert response["Content-Type"] == "application/problem+json"
        assert me(browser)["authenticated"]

    def test_a_token_from_before_the_sign_in_is_useless(self, google):
        browser = Client(enforce_csrf_checks=True)
        before = me(browser)["csrf_token"]
        sign_in(browser, google)

        assert browser.post(LOGOUT, headers={"X-CSRFToken": before}).status_code == 403

    def test_a_visitor_has_nothing_to_end(self, client):
        assert client.post(LOGOUT).status_code == 204


class TestNothingElse:
    @pytest.mark.parametrize(
        "path",
        [
            "accounts/login/",
            "accounts/signup/",
            "accounts/password/reset/",
            "accounts/google/login/",
            "accounts/",
        ],
    )
    def test_no_page_of_allauth_is_reached(self, client, google, path):
        assert client.get(f"/{path}").status_code == 404

    @pytest.mark.parametrize(
        "name", ["account_login", "account_signup", "socialaccount_signup", "google_login"]
    )
    def test_no_name_of_allauth_leads_anywhere(self, name):
        with pytest.raises(NoReverseMatch):
            reverse(name)

    def test_the_admin_keeps_no_clients_and_tokens(self, admin_client, google):
        page = admin_client.get("/admin/").text

        assert "socialaccount/socialaccount/" in page
        assert "socialapp" not in page
        assert "socialtoken" not in page

    def test_the_admin_offers_it(self, client, google):
        page = client.get("/admin/login/?next=/admin/auth/").text

        assert 'href="/api/auth/login?next=%2Fadmin%2Fauth%2F"' in page


RESCUED = [
    "/auth/google/callback",
    "/auth/google/callback/",
    "/auth/google/%2F",
    "/auth/google//x",
    "/auth/google",
    "/api/auth/google",
    "/api/auth/google/",
    "/api/auth/google/%2F",
    "/api/auth/google//",
    "/api/auth/google/%252F",
    "/api/auth/google/%2Fhttps://host/api/auth/google/%2F",
    "/api/auth/google//https://host/x",
    "/api/auth/google//callback",
    "/api/auth/google/%2Fcallback",
    "/api/auth/google/%2fcallback",
    "/api/auth/google/%5Ccallback",
    "/api/auth/google/%252Fcallback",
    "/api/auth/google/anything",
    "/api/auth/google/callback/",
    "/api/auth/google/callback%2F",
    "/api/auth/google/callback%0d%0aX-Evil:1",
    "/api/auth/google//api/auth/google/callback",
    "/api//auth/google/callback",
    "/api/auth//google/callback",
    "/api%252Fauth%252Fgoogle%252Fcallback",
    "//api/auth/google/callback",
]


class TestRescue:
    @pytest.mark.parametrize("path", RESCUED)
    def test_a_mangled_path_still_signs_in(self, client, google, path):
        query = urlsplit(google.consent(client.get(LOGIN)["Location"])).query
        rescued = client.get(f"http://testserver{path}?{query}")

        assert rescued.status_code == 302
        assert rescued["Location"] == f"{CALLBACK}?{query}"
        assert rescued["Cross-Origin-Opener-Policy"] == "unsafe-none"
        assert outcome(client.get(rescued["Location"])) == "success"
        assert me(client)["authenticated"]

    @pytest.mark.parametrize("path", RESCUED)
    def test_without_a_code_and_a_state_of_ours_it_is_400(self, client, google, path):
        state = parse_qs(urlsplit(client.get(LOGIN)["Location"]).query)["state"][0]
        for query in ("", "?code=1", "?code=1&state=forged", f"?state={state}", f"?code=&state={state}"):
            answer = client.get(f"http://testserver{path}{query}")

            assert answer.status_code == 400, query
            assert answer["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "bad_callback"
            assert "Location" not in answer

    def test_a_state_of_another_browser_or_of_long_ago_is_none(self, client, google):
        query = urlsplit(google.consent(client.get(LOGIN)["Location"])).query
        assert Client().get(f"/auth/google/callback?{query}").status_code == 400

        session = client.session
        for stashed in session[STATES_SESSION_KEY].values():
            stashed[1] = time.time() - STATE_TTL - 1
        session.save()

        assert client.get(f"/auth/google/callback?{query}").status_code == 400

    @pytest.mark.parametrize(
        "path", ["/%2F%2Fevil.example/callback", "/auth/other/callback", "/api/auth/googlex"]
    )
    def test_other_paths_are_left_alone(self, client, google, path):
        query = urlsplit(google.consent(client.get(LOGIN)["Location"])).query

        assert client.get(f"http://testserver{path}?{query}").status_code == 404

    def test_only_get(self, client, google):
        query = urlsplit(google.consent(client.get(LOGIN)["Location"])).query

        assert client.post(f"/api/auth/google/%2F?{query}").status_code == 404

    def test_the_code_is_in_no_log(self, client, google, caplog):
        caplog.set_level("DEBUG")
        query = urlsplit(google.consent(client.get(LOGIN)["Location"])).query
        code = parse_qs(query)["code"][0]
        caplog.clear()
        client.get(f"/auth/google/callback?{query}")
        Client().get(f"/auth/google/callback?{query}")

        assert code not in caplog.text


def test_a_web_process_reads_the_list_before_its_first_request_and_once(client, google, settings):
    settings.STAFF_EMAILS = frozenset({"ada@example.com"})
    sign_in(client, google)
    settings.STAFF_EMAILS = frozenset()

    withdraw_before_first_request()
    assert not me(client)["is_staff"]

    assert not request_started.disconnect(dispatch_uid="imagehub.accounts.staff_list")
