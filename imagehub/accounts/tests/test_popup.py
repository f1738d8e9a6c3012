"""Signing in through a real server, and in the popup of a real browser."""

import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import requests
from django.conf import settings as django_settings

from imagehub.accounts.tests.openid_provider import CLIENT_ID, CLIENT_SECRET

pytestmark = pytest.mark.django_db(transaction=True)

OPENER = """<!doctype html><button>Sign in</button><script>
window.heard = [];
document.querySelector("button").onclick = () => { window.popup = window.open(location.hash.slice(1), "imagehub-auth"); };
addEventListener("message", (event) => heard.push([event.origin, event.source === popup, event.data]));
</script>"""


class OpenerPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin-allow-popups")
        self.end_headers()
        self.wfile.write(OPENER.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def frontends():
    """Two pages of other origins: one that is configured, and one that is not."""
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenerPage) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield [f"http://localhost:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(process_env, openid, frontends):
    """The address of a gunicorn that knows the provider."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = process_env | {
        "GOOGLE_CLIENT_ID": CLIENT_ID,
        "GOOGLE_CLIENT_SECRET": CLIENT_SECRET,
        "IMAGEHUB_GOOGLE_URL": openid.url,
        "IMAGEHUB_STAFF_EMAILS": " ADA@example.com,bob@example.com",
        "IMAGEHUB_FRONTEND_ORIGINS": frontends[0],
    }
    argv = [
        sys.executable,
        "-m",
        "gunicorn",
        "imagehub.wsgi",
        "--bind",
        f"127.0.0.1:{port}",
        "--threads",
        "4",
    ]
    process = subprocess.Popen(
        [*argv, "--graceful-timeout", "1", "--log-level", "error"], env=env, cwd=django_settings.BASE_DIR
    )
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{base}/api/health/live", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_under_gunicorn_even_a_mangled_callback_signs_in(site, openid):
    browser = requests.Session()
    started = browser.get(f"{site}/api/auth/login", allow_redirects=False)
    callback = openid.consent(started.headers["Location"])
    assert callback.startswith(f"{site}/api/auth/google/callback?")

    mangled = callback.replace("/callback?", "/%2F?")
    landed = browser.get(mangled)

    assert [answer.status_code for answer in landed.history] == [302, 302]
    assert landed.url == f"{site}/api/auth/done?status=success"
    assert browser.get(f"{site}/api/auth/me").json()["role"] == "staff"
    replayed = browser.get(callback, allow_redirects=False)
    assert replayed.headers["Location"] == "/api/auth/done?status=error"
    assert requests.get(mangled, timeout=10).status_code == 400
    for name in ("done.js", "sign_in.js"):
        assert browser.get(f"{site}/static/accounts/{name}").status_code == 200


def open_popup(page, click):
    with page.expect_popup() as opened:
        click()
    return opened.value


@pytest.mark.usefixtures("transactional_db")
class TestPopup:
    pytestmark = [pytest.mark.browser, pytest.mark.once]

    def test_only_a_frontend_that_is_configured_is_told(self, chromium, site, frontends):
        configured, other = frontends
        for frontend, link, status in (
            (configured, "cancel", "cancelled"),
            (configured, "allow", "success"),
            (other, "allow", "success"),
        ):
            context = chromium.new_context()
            page = context.new_page()
            page.goto(f"{frontend}/#{site}/api/auth/login")
            popup = open_popup(page, lambda page=page: page.click("button"))
            popup.click(f"#{link}")
            page.wait_for_function("popup.closed")

            expected = [[site, True, {"type": "imagehub-auth", "status": status}]]
            if frontend == configured:
                page.wait_for_function("heard.length > 0")
            assert page.evaluate("heard") == (expected if frontend == configured else [])
            who = context.request.get(f"{site}/api/auth/me").json()
            assert who["authenticated"] == (status == "success")
            context.close()

    def test_our_own_page_hears_both_ways_and_reloads(self, chromium, site):
        context = chromium.new_context()
        listener = context.new_page()
        listener.goto(site)  # no opener: only the broadcast reaches it
        page = context.new_page()
        page.goto(site)
        listener.evaluate("document.title = 'before'")
        popup = open_popup(page, lambda: page.click("header [data-sign-in]"))
        popup.click("#allow")

        for told in (page, listener):
            told.get_by_role("link", name="Admin").wait_for()  # the reload shows who is signed in
        assert listener.title() != "before"
        assert popup.is_closed()
