"""The demonstration: everything on one machine, used over HTTP as any client would."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone
from tqdm import tqdm

from generation.cards import CARDS, NAME, RUN, TEMPLATE
from imagehub.accounts.services import create_token
from imagehub.jobs import parent_death
from imagehub.jobs.supervisor import port_is_free

ADMIN = "demo"
STARTUP_SECONDS = 90.0
JOB_SECONDS = 600.0
POLL_SECONDS = 0.2


class DemoFailed(Exception):
    """The demonstration did not come to its end; the text says why."""


class Demo:
    """One run of the demonstration."""

    def __init__(self, *, port: int, say: Callable[[str], Any]) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.port = port
        self.say = say
        self._token = ""

    def run(self, *, keep_serving: bool) -> None:
        """Prepare, start, make the set, show where it is; then serve until Ctrl-C, or stop.

        Raises:
            DemoFailed: a picture is missing, something did not start, or this is production.
        """
        for request in (signal.SIGINT, signal.SIGTERM):  # both end the demonstration in order
            signal.signal(request, signal.default_int_handler)
        if settings.IS_PRODUCTION:
            raise DemoFailed("The demonstration makes an administrator of its own: not in production.")
        self._require_free_port()
        self.say("Preparing the database ...")
        call_command("migrate", verbosity=0)
        password = self._prepare_people()
        self.say("Starting the web server and the clusters ...")
        services = subprocess.Popen(
            [sys.executable, str(settings.BASE_DIR / "manage.py"), "supervise", "--port", str(self.port)],
            # A line for each request would hide what the demonstration says.
            env=os.environ | {"IMAGEHUB_LOG_LEVEL": os.environ.get("IMAGEHUB_LOG_LEVEL") or "WARNING"},
            start_new_session=True,  # a Ctrl-C is ours to pass on
            preexec_fn=parent_death.before_exec(signal.SIGTERM),
        )
        try:
            self._wait_until_ready(services)
            run = self._follow(self._submit(), services)
            self._show(run, self._images(run), password)
            if keep_serving:
                self.say("\nPress Ctrl-C to stop.\n")
                services.wait()
        except KeyboardInterrupt:
            self.say("\nStopping ...")
            if not keep_serving:
                raise DemoFailed("The demonstration was interrupted.") from None
        finally:
            services.send_signal(signal.SIGTERM)
            services.wait()

    def _require_free_port(self) -> None:
        if not port_is_free("127.0.0.1", self.port):
            raise DemoFailed(f"Port {self.port} is taken. Choose another: make demo PORT=8001")

    def _prepare_people(self) -> str:
        """Make the administrator, with a new password for this run, and a token for this client."""
        users = get_user_model().objects
        password = secrets.token_urlsafe(9)
        user, _ = users.get_or_create(username=ADMIN, defaults={"email": "demo@localhost"})
        user.is_staff = user.is_superuser = True
        user.set_password(password)
        user.save()
        tomorrow = timezone.now() + timedelta(days=1)
        self._token = create_token(user, name="make demo", expires_at=tomorrow)[1]
        return password

    def _wait_until_ready(self, services: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        reason = "nothing answered"
        while time.monotonic() < deadline:
            if services.poll() is not None:
                raise DemoFailed("The services ended at once; their output stands above.")
            try:
                self._call("GET", "/api/health/ready")
            except urllib.error.HTTPError as error:
                reason = f"not ready: {', '.join(json.load(error).get('degraded', []))}"
            except OSError as error:
                reason = str(error)
            else:
                return
            time.sleep(POLL_SECONDS)
        raise DemoFailed(f"The services did not become ready ({reason}).")

    def _submit(self) -> dict[str, Any]:
        """Make the set, ask for all its pictures at once, and return the set run."""
        template = self._call("POST", "/api/albums", TEMPLATE)
        return self._call("POST", f"/api/albums/{template['id']}/generate", RUN)

    def _follow(self, run: dict[str, Any], services: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Show how far the set is until it has ended, and return it then."""
        told: set[str] = set()
        deadline = time.monotonic() + JOB_SECONDS
        quiet = not sys.stderr.isatty()
        with tqdm(total=100, desc=NAME, unit="%", disable=quiet) as bar:
            while True:
                if services.poll() is not None:
                    raise DemoFailed("The services ended before the pictures were made.")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"The pictures were not made within {JOB_SECONDS:.0f} s.")
                run = self._get_run(run)
                bar.n = run["progress"]
                bar.refresh()
                for item in run["items"]:
                    if item["status"] in {"failed", "cancelled"}:
                        reason = item["error"]["detail"] if item["error"] else item["status"]
                        raise DemoFailed(f"“{item['name']}” was not made: {reason}")
                    if quiet and item["status"] == "completed" and item["job"] not in told:
                        told.add(item["job"])
                        self.say(f"  [{len(told):2}/{run['total']}] {item['name']}")
                if run["status"] == "completed":
                    return run
                time.sleep(POLL_SECONDS)

    def _get_run(self, run: dict[str, Any]) -> dict[str, Any]:
        """Return a set run as it is now, or as it was while the web server is being started again."""
        try:
            return self._call("GET", f"/api/set-runs/{run['id']}")
        except urllib.error.HTTPError:
            raise
        except OSError:
            return run

    def _images(self, run: dict[str, Any]) -> list[tuple[str, Path]]:
        """Return name and file of every card, having made sure that the gallery has them all, in their order."""
        listed = self._call("GET", f"/api/images?album={run['album']}")["results"]
        if [image["name"] for image in listed] != [card.name for card in CARDS]:
            raise DemoFailed("The album does not have every picture once, in the order of the set.")
        found = [(image["name"], Path(image["storage_path"])) for image in listed]
        for name, path in found:
            if not path.is_file():
                raise DemoFailed(f"The file of “{name}” is missing.")
        return found

    def _show(self, run: dict[str, Any], images: list[tuple[str, Path]], password: str) -> None:
        for name, path in images:
            self.say(f"  {name:16} {path}")
        sheet = settings.VAR_DIR / "starter-cards.png"
        sheet.write_bytes(self._fetch("GET", run["contact_sheet_url"]))
        self.say(f"\nContact sheet  {sheet}")
        self.say(f"Gallery        {self.base}/albums/{run['album']}")
        self.say(f"API            {self.base}/api/docs/")
        self.say(
            f"Admin          {self.base}/admin/  sign in as {ADMIN} with {password} (this run's password)"
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Make one request as the administrator, and return the JSON it answers with."""
        return json.loads(self._fetch(method, path, body))

    def _fetch(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - always our own address
            self.base + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return response.read()
