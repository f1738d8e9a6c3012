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
from http import HTTPStatus
from itertools import cycle
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone
from PIL import Image as Picture
from tqdm import tqdm

from albums.models import Album, Visibility
from albums.services import create_album
from generation.cards import CARDS, NAME, Card
from generation.models import GenerationJob
from imagehub import storage
from imagehub.accounts.services import create_token
from imagehub.jobs import parent_death
from imagehub.jobs.supervisor import port_is_free

ADMIN = "demo"
COLLEAGUE = "demo-colleague"
"""Two people ask for the pictures in turns: each may ask for ten a minute, and there are twelve."""
STARTUP_SECONDS = 90.0
JOB_SECONDS = 600.0
POLL_SECONDS = 0.2
SHEET_TILE = 128
SHEET_COLUMNS = 4


class DemoFailed(Exception):
    """The demonstration did not come to its end; the text says why."""


class Demo:
    """One run of the demonstration."""

    def __init__(self, *, port: int, say: Callable[[str], Any]) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.port = port
        self.say = say
        self._tokens: list[str] = []

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
        album = create_album(
            Album(
                name=NAME,
                kind=Album.Kind.SET,
                visibility=Visibility.PUBLIC,
                description="Made by the demonstration, with the starter model.",
                owner=get_user_model().objects.get(username=ADMIN),
            )
        )
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
            jobs = self._submit(album)
            self._follow(jobs, services)
            images = self._images(jobs)
            self._show(album, images, password)
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
        """Make the administrator, with a new password for this run, and tokens of two people for this client."""
        users = get_user_model().objects
        password = secrets.token_urlsafe(9)
        user, _ = users.get_or_create(username=ADMIN, defaults={"email": "demo@localhost"})
        user.is_staff = user.is_superuser = True
        user.set_password(password)
        user.save()
        colleague, _ = users.get_or_create(
            username=COLLEAGUE, defaults={"email": "demo-colleague@localhost", "is_staff": True}
        )
        tomorrow = timezone.now() + timedelta(days=1)
        self._tokens = [
            create_token(person, name="make demo", expires_at=tomorrow)[1] for person in (user, colleague)
        ]
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

    def _submit(self, album: Album) -> dict[str, Card]:
        """Ask for every card, and return the cards by job."""
        jobs = {}
        for card, token in zip(CARDS, cycle(self._tokens), strict=False):
            job = self._call_within_the_limit(
                "POST",
                "/api/generate",
                {"prompt": card.prompt, "seed": card.seed, "album": str(album.pk), "visibility": "public"},
                token=token,
            )
            jobs[job["id"]] = card
        return jobs

    def _follow(self, jobs: dict[str, Card], services: subprocess.Popen[bytes]) -> None:
        """Show a bar for the whole set and one for the picture being made, until all jobs have ended."""
        waiting = dict(jobs)
        deadline = time.monotonic() + JOB_SECONDS
        quiet = not sys.stderr.isatty()
        with (
            tqdm(total=len(jobs), desc="Starter cards", unit="picture", disable=quiet) as whole,
            tqdm(total=100, unit="%", leave=False, disable=quiet) as current,
        ):
            while waiting:
                if services.poll() is not None:
                    raise DemoFailed("The services ended before the pictures were made.")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{len(waiting)} pictures were not made within {JOB_SECONDS:.0f} s.")
                for pk, card in list(waiting.items()):
                    job = self._get_job(pk)
                    if job is None or job["status"] in {"pending", "queued"}:
                        break
                    if job["status"] == "running":
                        current.set_description(card.name)
                        current.n = job["progress"]
                        current.refresh()
                        break
                    del waiting[pk]
                    whole.update()
                    if job["status"] != "completed":
                        reason = job["error"]["detail"] if job["error"] else job["status"]
                        raise DemoFailed(f"“{card.name}” was not made: {reason}")
                    if quiet:
                        self.say(f"  [{len(jobs) - len(waiting):2}/{len(jobs)}] {card.name}: {card.prompt}")
                time.sleep(POLL_SECONDS)

    def _get_job(self, pk: str) -> dict[str, Any] | None:
        """Return a job, or None while the web server is being started again."""
        try:
            return self._call("GET", f"/api/jobs/{pk}")
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def _images(self, jobs: dict[str, Card]) -> list[tuple[Card, Path]]:
        """Return the file of every card, having made sure that the gallery lists each exactly once."""
        found = []
        for pk, card in jobs.items():
            [image] = self._call("GET", f"/api/jobs/{pk}")["images"]
            path = storage.root() / self._call("GET", f"/api/images/{image['id']}")["storage_path"]
            if not path.is_file():
                raise DemoFailed(f"The file of “{card.name}” is missing.")
            found.append((card, path))
        made = GenerationJob.objects.filter(pk__in=jobs).values_list("status", flat=True)
        if len(found) != len(CARDS) or set(made) != {"completed"}:
            raise DemoFailed("A picture is missing.")
        return found

    def _show(self, album: Album, images: list[tuple[Card, Path]], password: str) -> None:
        for card, path in images:
            self.say(f"  {card.name:16} {path}")
        self.say(f"\nContact sheet  {self._contact_sheet([path for _, path in images])}")
        self.say(f"Gallery        {self.base}/albums/{album.pk}")
        self.say(f"API            {self.base}/api/docs/")
        self.say(
            f"Admin          {self.base}/admin/  sign in as {ADMIN} with {password} (this run's password)"
        )

    @staticmethod
    def _contact_sheet(paths: list[Path]) -> Path:
        rows = -(-len(paths) // SHEET_COLUMNS)
        sheet = Picture.new("RGB", (SHEET_COLUMNS * SHEET_TILE, rows * SHEET_TILE), "white")
        for place, path in enumerate(paths):
            with Picture.open(path) as picture:
                tile = picture.convert("RGB").resize((SHEET_TILE, SHEET_TILE), Picture.Resampling.NEAREST)
            sheet.paste(tile, (place % SHEET_COLUMNS * SHEET_TILE, place // SHEET_COLUMNS * SHEET_TILE))
        target = settings.VAR_DIR / "starter-cards.png"
        sheet.save(target)
        return target

    def _call_within_the_limit(self, method: str, path: str, body: dict[str, Any], *, token: str) -> Any:
        """Make a request that is limited, and wait as long as the server says when it is refused for that."""
        while True:
            try:
                return self._call(method, path, body, token=token)
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                time.sleep(int(error.headers["Retry-After"]))

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str | None = None
    ) -> Any:
        """Make one request with a token, the administrator's by default, and return the JSON it answers with."""
        request = urllib.request.Request(  # noqa: S310 - always our own address
            self.base + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Authorization": f"Bearer {token or self._tokens[0]}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)
