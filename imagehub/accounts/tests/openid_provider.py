"""An OpenID provider on loopback that checks what Google checks."""

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
import requests

CLIENT_ID, CLIENT_SECRET = "client-of-the-tests", "secret-of-the-tests"
ADA = {
    "sub": "1001",
    "email": "Ada@Example.com",
    "email_verified": True,
    "given_name": "Ada",
    "family_name": "L",
}


class OpenIdProvider(ThreadingHTTPServer):
    """Signs in ``person``, who agrees or cancels by a link on the page of consent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.person = dict(ADA)
        self.changes: dict[str, object] = {}  # to the claims of the next token
        self.grants: dict[str, dict[str, str]] = {}
        self.refusals: list[str] = []
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def consent(self, url: str, link: str = "allow") -> str:
        """Be the browser: open the page of consent, and return where a link of it leads."""
        page = requests.get(url, timeout=10)
        page.raise_for_status()
        return re.search(f'id="{link}" href="([^"]+)"', page.text)[1].replace("&amp;", "&")


class Handler(BaseHTTPRequestHandler):
    server: OpenIdProvider

    def do_GET(self) -> None:
        asked = dict(parse_qsl(urlsplit(self.path).query))
        if not self.path.startswith("/authorize?"):
            return self._answer(404, "text/plain", "")
        if not (
            asked["client_id"] == CLIENT_ID
            and asked["response_type"] == "code"
            and asked["code_challenge_method"] == "S256"
            and set(asked["scope"].split()) == {"openid", "email", "profile"}
            and asked["nonce"]
        ):
            return self._answer(400, "text/plain", "bad request")
        code = secrets.token_urlsafe()
        self.server.grants[code] = asked
        links = {"allow": {"code": code}, "cancel": {"error": "access_denied"}}
        page = "".join(
            f'<a id="{name}" href="{asked["redirect_uri"]}?{urlencode(query | {"state": asked["state"]})}">{name}</a> '
            for name, query in links.items()
        )
        return self._answer(200, "text/html", page.replace("&", "&amp;"))

    def do_POST(self) -> None:
        sent = {
            name: values[0]
            for name, values in parse_qs(
                self.rfile.read(int(self.headers["Content-Length"])).decode()
            ).items()
        }
        grant = self.server.grants.pop(sent.get("code", ""), None)
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        refusal = (
            "code"
            if grant is None
            else "secret"
            if (sent["client_id"], sent["client_secret"]) != (CLIENT_ID, CLIENT_SECRET)
            else "redirect_uri"
            if sent["redirect_uri"] != grant["redirect_uri"]
            else "verifier"
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != grant["code_challenge"]
            else ""
        )
        if refusal:
            self.server.refusals.append(refusal)
            return self._answer(400, "application/json", '{"error": "invalid_grant"}')
        now = int(time.time())
        claims = {
            "iss": self.server.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 600,
            "nonce": grant["nonce"],
        }
        token = jwt.encode(
            claims | self.server.person | self.server.changes, secrets.token_hex(32), algorithm="HS256"
        )
        body = json.dumps({"access_token": "an-access-token", "expires_in": 600, "id_token": token})
        return self._answer(200, "application/json", body)

    def _answer(self, status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
