"""What answers say to browsers, and which other origins may read them."""

import asyncio
import re

import pytest
from django.conf import settings as project_settings
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path

from albums.models import Visibility
from albums.tests.factories import ImageFactory
from imagehub.security_headers import DATA_POLICY
from imagehub.urls import handler400, handler403, handler404, handler500  # noqa: F401 - of this module's own routes
from imagehub.urls import urlpatterns as real_urls

pytestmark = pytest.mark.django_db

APP = "https://app.example.com"
PAGES = ["/", "/admin/login/", "/api/docs/"]


async def events(request):
    return HttpResponse("data: 1\n\n", content_type="text/event-stream")


async def broken(request):
    raise RuntimeError("a bug")


def outspoken(request):
    return JsonResponse(
        {}, headers={"Cache-Control": "public, max-age=60", "Content-Security-Policy": "sandbox"}
    )


urlpatterns = [
    path("api/jobs/x/events", events),
    path("api/broken", broken),
    path("api/outspoken", outspoken),
    *real_urls,
]


def policy(response) -> dict[str, str]:
    directives = (part.split(maxsplit=1) for part in response["Content-Security-Policy"].split(";"))
    return {name: "".join(values) for name, *values in directives}


class TestPages:
    @pytest.mark.parametrize("address", PAGES)
    def test_may_load_our_own_files_and_nothing_else(self, client, address):
        response = client.get(address)

        assert response.status_code == 200
        assert policy(response) == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' data: blob:",
            "font-src": "'self'",
            "connect-src": "'self'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
            "object-src": "'none'",
        }
        assert response["X-Frame-Options"] == "DENY"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Referrer-Policy"] == "same-origin"
        assert response["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "private" in response["Cache-Control"]
        assert {"Cookie", "Authorization"} <= set(re.split(r",\s*", response["Vary"]))

    @pytest.mark.parametrize(
        "address", [*PAGES, "/admin/albums/album/add/", "/admin/generation/generationjob/"]
    )
    def test_have_nothing_written_into_them(self, admin_client, address):
        text = admin_client.get(address).text

        scripts = re.findall(r"<script\b([^>]*)>(.*?)</script>", text, re.DOTALL)
        assert [
            attributes
            for attributes, body in scripts
            if body.strip() and "application/json" not in attributes
        ] == []
        assert re.findall(r"<style\b|\sstyle=|\son[a-z]+=\"|javascript:", text) == []

    def test_use_no_powerful_feature(self, client):
        features = client.get("/")["Permissions-Policy"].split(", ")

        assert {"camera=()", "microphone=()", "geolocation=()", "payment=()", "usb=()"} <= set(features)
        assert all(feature.endswith("=()") for feature in features)


class TestData:
    @pytest.mark.parametrize("address", ["/api/health", "/api/images", "/api/nothing", "/api/schema/"])
    def test_is_no_page_and_nobody_keeps_it(self, client, address):
        response = client.get(address)

        assert response["Content-Security-Policy"] == DATA_POLICY
        assert "sandbox" in DATA_POLICY
        assert response["Cache-Control"] == "private, no-store"
        assert {"Cookie", "Authorization"} <= set(re.split(r",\s*", response["Vary"]))
        assert response["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in response
        assert "X-Powered-By" not in response

    def test_files_can_do_nothing_and_keep_their_own_cache_rules(self, client, admin_client):
        public = ImageFactory(visibility=Visibility.PUBLIC)
        private = ImageFactory(visibility=Visibility.PRIVATE)

        shared = client.get(f"/api/images/{public.pk}/file")
        own = admin_client.get(f"/api/images/{private.pk}/file")

        assert shared["Content-Security-Policy"] == own["Content-Security-Policy"] == DATA_POLICY
        assert shared["Cache-Control"] == "public, max-age=3600"
        assert own["Cache-Control"] == "private, no-cache"
        assert {"Cookie", "Authorization"} <= set(re.split(r",\s*", own["Vary"]))

    @pytest.mark.urls(__name__)
    def test_a_view_has_the_last_word(self, client):
        response = client.get("/api/outspoken")

        assert response["Content-Security-Policy"] == "sandbox"
        assert response["Cache-Control"] == "public, max-age=60"
        assert "Authorization" not in response.get("Vary", "")

    @pytest.mark.parametrize(
        "header", [{"Host": "evil.test"}, {"Host": "localhost.evil.test"}, {"Host": "a b"}]
    )
    def test_a_foreign_host_is_refused_as_a_problem(self, client, header):
        response = client.get("/api/health", headers=header)

        assert response.status_code == 400
        assert response["Content-Type"] == "application/problem+json"
        assert "evil" not in response.text

    def test_a_forwarded_host_is_not_believed(self, admin_client):
        ImageFactory.create_batch(2)

        response = admin_client.get("/api/images?limit=1", headers={"X-Forwarded-Host": "evil.test"})

        assert response.json()["next"].startswith("http://testserver/")
        assert "evil" not in response.text


@pytest.fixture
def _frontend(settings):
    settings.CORS_ALLOWED_ORIGINS = [APP]


def ask(client_class, method, address, **headers):
    """Ask through Django's synchronous or asynchronous handler."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if client_class is Client:
        return Client(raise_request_exception=False).generic(method, address, headers=headers)
    client = AsyncClient(raise_request_exception=False)
    return asyncio.run(client.generic(method, address, headers=headers))


def cors(response) -> set[str]:
    return {name for name in response.headers if name.lower().startswith("access-control-")}


@pytest.mark.usefixtures("_frontend")
@pytest.mark.urls(__name__)
@pytest.mark.parametrize("client_class", [Client, AsyncClient])
class TestOtherOrigins:
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
    def test_a_frontend_is_told_what_it_may_send(self, client_class, method):
        response = ask(
            client_class,
            "OPTIONS",
            "/api/images/1",
            Origin=APP,
            Access_Control_Request_Method=method,
            Access_Control_Request_Headers="authorization",
        )

        assert response.status_code == 200
        assert response["Access-Control-Allow-Origin"] == APP
        assert response["Access-Control-Allow-Credentials"] == "true"
        assert method in response["Access-Control-Allow-Methods"].split(", ")
        assert {
            *("authorization", "content-type", "x-csrftoken", "x-request-id"),
            *("idempotency-key", "last-event-id", "range"),
        } <= set(response["Access-Control-Allow-Headers"].split(", "))

    @pytest.mark.parametrize(
        ("address", "status"),
        [
            ("/api/health", 200),
            ("/api/jobs/x/events", 200),
            ("/api/jobs", 401),
            ("/api/nothing", 404),
            ("/api/broken", 500),
        ],
    )
    def test_a_frontend_reads_answers_and_refusals(self, client_class, address, status):
        response = ask(client_class, "GET", address, Origin=APP)

        assert response.status_code == status
        assert response["Access-Control-Allow-Origin"] == APP
        assert response["Access-Control-Allow-Credentials"] == "true"
        assert {
            *("X-Request-ID", "Location", "Retry-After", "ETag", "Content-Range", "Content-Disposition"),
            *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
        } <= set(response["Access-Control-Expose-Headers"].split(", "))
        assert "origin" in response["Vary"].lower()
        assert response["Content-Security-Policy"] == DATA_POLICY

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.test",
            "null",
            "https://app.example.com.evil.test",
            "https://evil.test/https://app.example.com",
            "https://evilapp.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com@evil.test",
        ],
    )
    def test_nobody_else_is_told_anything(self, client_class, origin):
        preflight = ask(
            client_class, "OPTIONS", "/api/images", Origin=origin, Access_Control_Request_Method="GET"
        )
        answer = ask(client_class, "GET", "/api/health", Origin=origin)

        assert cors(preflight) == cors(answer) == set()

    def test_pages_are_for_nobody_else(self, client_class):
        assert cors(ask(client_class, "GET", "/admin/login/", Origin=APP)) == set()


def test_frontends_are_named_in_the_environment():
    assert project_settings.CORS_ALLOWED_ORIGINS == project_settings.FRONTEND_ORIGINS == []


@pytest.mark.django_db
def test_a_request_with_too_many_fields_is_refused_like_any_other(client):
    response = client.get("/api/images?" + "&".join(f"a{number}=1" for number in range(1001)))

    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")
    assert response["X-Request-ID"] == response.json()["request_id"] != ""
    assert "default-src 'none'" in response["Content-Security-Policy"]
