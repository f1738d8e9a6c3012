"""The contract of ``/api/auth/tokens``, of scopes, and of ``/api/admin/audit``."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from imagehub.accounts import audit, services
from imagehub.accounts.models import ApiToken, AuditEntry, Scope
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory

pytestmark = pytest.mark.django_db
TOKENS, AUDIT = "/api/auth/tokens", "/api/admin/audit"
BODY = {"name": "laptop", "scopes": ["read", "generate"]}
SECRET = "ih_0123456789abcdef"


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def client(user):
    client = Client()
    client.force_login(user)
    return client


def post(client, body=BODY, **headers):
    return client.post(TOKENS, body, content_type="application/json", headers=headers)


def with_token(user, *scopes, **values):
    ApiTokenFactory(user=user, scopes=list(scopes), secret=SECRET, **values)
    return Client(headers={"Authorization": f"Bearer {SECRET}"})


class TestCreate:
    def test_shows_the_secret_once(self, client, user):
        response = post(client)

        created = response.json()
        secret = created.pop("token")
        assert response.status_code == 201
        assert response["Cache-Control"] == "no-store"
        assert services.find_token(secret, timezone.now()).user == user
        assert created.keys() == {
            "id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked",
        }  # fmt: skip
        assert client.get(response["Location"]).json() == created
        assert client.get(TOKENS).json()["results"] == [created]
        assert secret not in client.get(TOKENS).text + client.get(response["Location"]).text

    def test_keeps_name_scopes_and_expiry(self, client):
        expires_at = timezone.now() + timedelta(days=1)

        token = post(
            client, {"name": "x", "scopes": ["train", "read"], "expires_at": expires_at.isoformat()}
        ).json()

        assert token["scopes"] == ["read", "train"]
        assert ApiToken.objects.get(pk=token["id"]).expires_at == expires_at

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""), ("name", 5), ("name", "x" * 101), ("name", "a\u0000"),
            ("scopes", []), ("scopes", ["root"]), ("scopes", "read"), ("scopes", ["read", "read"]), ("scopes", [{}]),
            ("expires_at", "2001-01-01T00:00:00Z"), ("expires_at", "soon"), ("expires_at", 5),
            ("user", 1), ("is_staff", True), ("digest", "0" * 64), ("prefix", "ih_admin"), ("revoked", False),
        ],
    )  # fmt: skip
    def test_refuses_everything_else_and_names_the_field(self, client, field, value):
        response = post(client, BODY | {field: value})

        assert response.status_code == 400
        assert {error["pointer"].split("/")[1] for error in response.json()["errors"]} == {field}
        assert not ApiToken.objects.exists()

    @pytest.mark.parametrize("field", BODY)
    def test_needs_a_name_and_scopes(self, client, field):
        assert post(client, {name: value for name, value in BODY.items() if name != field}).status_code == 400

    def test_stops_before_a_user_fills_the_table(self, client, user, monkeypatch):
        monkeypatch.setattr(services, "MOST_TOKENS", 1)
        assert post(client).status_code == 201

        refused = post(client)

        assert (refused.status_code, refused.json()["code"]) == (409, "too_many_tokens")
        services.revoke_token(ApiToken.objects.get())
        assert post(client).status_code == 201

    def test_needs_a_csrf_token_with_a_session_and_none_with_a_token(self, user):
        guarded = Client(enforce_csrf_checks=True)
        guarded.force_login(user)
        assert (post(guarded).status_code, post(guarded).json()["code"]) == (403, "csrf_failed")

        ApiTokenFactory(user=user, secret=SECRET)
        assert post(guarded, Authorization=f"Bearer {SECRET}").status_code == 201

    def test_refuses_a_session_whose_csrf_token_or_origin_is_another(self, user):
        guarded, other = Client(enforce_csrf_checks=True), Client(enforce_csrf_checks=True)
        guarded.force_login(user)
        for browser in (guarded, other):
            browser.get("/admin/login/")
        mine, foreign = guarded.cookies["csrftoken"].value, other.cookies["csrftoken"].value

        assert post(guarded, **{"X-CSRFToken": foreign}).status_code == 403
        assert post(guarded, **{"X-CSRFToken": mine, "Origin": "https://evil.test"}).status_code == 403
        assert post(guarded, **{"X-CSRFToken": mine}).status_code == 201

    def test_refuses_json_that_says_it_is_text(self, client):
        assert client.post(TOKENS, '{"name": "x"}', content_type="text/plain").status_code == 415

    def test_is_not_open_to_a_bad_token_beside_a_good_session(self, client):
        assert post(client, Authorization="Bearer wrong").status_code == 401


class TestRevoke:
    def test_closes_the_door_at_once_and_keeps_the_row(self, client, user):
        program = with_token(user, "admin")
        token = ApiToken.objects.get()
        assert program.get(TOKENS).status_code == 200

        assert client.delete(f"{TOKENS}/{token.pk}").status_code == 204

        assert program.get(TOKENS).status_code == 401
        assert client.get(f"{TOKENS}/{token.pk}").json()["revoked"] is True

    def test_knows_nothing_of_tokens_of_others(self, client):
        token = ApiTokenFactory()
        unknown = "01a212ab-e42f-7749-9fe9-e2062007175c"

        answers = [client.delete(f"{TOKENS}/{pk}") for pk in (token.pk, unknown)]

        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json()["detail"] == answers[1].json()["detail"]
        assert client.get(TOKENS).json()["results"] == []
        token.refresh_from_db()
        assert token.revoked_at is None


class TestScopes:
    @pytest.mark.parametrize("scope", Scope.values)
    def test_every_scope_lets_a_token_read(self, scope):
        program = with_token(UserFactory(staff=True), scope)

        assert program.get("/api/jobs").status_code == 200

    def test_a_token_without_scopes_opens_nothing(self):
        program = with_token(UserFactory(staff=True))

        for path in ("/api/jobs", "/api/images", TOKENS):
            assert program.get(path).status_code == 403, path

    @pytest.mark.parametrize("scope", ["read", "generate", "train", "scrape"])
    def test_only_admin_makes_tokens(self, user, scope):
        response = post(with_token(user, scope))

        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert (
            response["WWW-Authenticate"]
            == 'Bearer realm="ImageHub", error="insufficient_scope", scope="admin"'
        )
        assert ApiToken.objects.count() == 1

    @pytest.mark.parametrize(
        ("scope", "status"),
        [("read", 403), ("train", 403), ("scrape", 403), ("generate", 400), ("admin", 400)],
    )
    def test_generation_has_a_scope_of_its_own(self, scope, status):
        program = with_token(UserFactory(staff=True), scope)

        assert program.post("/api/generate", {}, content_type="application/json").status_code == status

    def test_no_scope_makes_more_of_a_user_than_it_is(self, user):
        response = with_token(user, "admin").post("/api/generate", {}, content_type="application/json")

        assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


class TestAudit:
    @pytest.fixture
    def staff(self):
        client = Client()
        client.force_login(UserFactory(staff=True, username="ada"))
        return client

    def test_shows_who_did_what_from_where_newest_first(self, staff):
        post(staff, **{"X-Request-ID": "request-17"})

        newest, before, oldest = staff.get(AUDIT).json()["results"]

        assert (oldest["action"], oldest["actor"], oldest["via"]) == ("user.create", "", "system")
        assert (before["action"], before["actor"]) == ("sign_in", "ada")
        assert (newest["action"], newest["actor"], newest["via"]) == ("token.create", "ada", "session")
        assert (newest["address"], newest["request_id"]) == ("127.0.0.1", "request-17")
        assert newest["target"]["type"] == "accounts.apitoken"
        assert newest["after"]["scopes"] == ["read", "generate"]
        assert newest["after"]["digest"].keys() == {"length", "sha256"}

    def test_filters(self, staff):
        token = post(staff).json()
        now = timezone.now()
        audit.record("config.change", actor=audit.Actor(None, audit.Via.SYSTEM))
        AuditEntry.objects.filter(action="config.change").update(at=now + timedelta(hours=1))

        def actions(**query):
            return [entry["action"] for entry in staff.get(AUDIT, query).json()["results"]]

        assert actions(actor="ada") == ["token.create", "sign_in"]
        assert actions(action="sign_in") == ["sign_in"]
        assert actions(target=token["id"]) == ["token.create"]
        assert actions(target_type="auth.user") == ["sign_in", "user.create"]
        assert actions(at_after=now.isoformat()) == ["config.change"]
        assert actions(at_before=now.isoformat()) == ["token.create", "sign_in", "user.create"]

    @pytest.mark.parametrize(
        "query",
        [
            "colour=red",
            "at_after=soon",
            "at_after=0001-01-01T00:00:00%2B23:59",
            "at_before=9999-12-31T23:59:59-23:59",
            "actor=%00",
            "limit=1e9",
            "limit=-1",
            "cursor=x",
            "ordering=actor__password",
        ],
    )
    def test_refuses_parameters_that_mean_nothing(self, staff, query):
        assert staff.get(f"{AUDIT}?{query}").status_code == 400

    def test_pages_by_keyset(self, staff):
        for number in range(3):
            audit.record(f"test.{number}")

        first = staff.get(f"{AUDIT}?limit=2").json()
        second = staff.get(first["next"]).json()

        assert [entry["action"] for entry in first["results"] + second["results"]] == [
            "test.2", "test.1", "test.0", "sign_in",
        ]  # fmt: skip

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
    def test_cannot_be_written_to(self, staff, method):
        assert getattr(staff, method)(AUDIT, {}, content_type="application/json").status_code == 405
