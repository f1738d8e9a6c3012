"""The set-up that deploy/ ships, started from its own files and used over HTTPS: nginx, gunicorn and the four clusters."""

import grp
import os
import pwd
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import requests
from django.conf import settings as django_settings
from django.db import connection
from PIL import Image

from deploy import shipped
from deploy.shipped import Site, Unit
from generation.models import GenerationJob
from generation.tests.factories import starter_model
from imagehub.accounts import services
from imagehub.accounts.models import Scope
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

HOST = "images.example.com"
MIB = 1 << 20
START_SECONDS = 120


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> object:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def somebody() -> tuple[dict[str, object], str]:
    """Return as whom services run, and as whom nginx does: nobody and www-data, where this user may choose."""
    if os.geteuid() == 0:
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        argv = [sys.executable, "-c", "import django, imagehub.apps"]
        with suppress(OSError):
            can = subprocess.run(argv, cwd=django_settings.BASE_DIR, capture_output=True, **identity)
            if can.returncode == 0:
                return identity, "www-data nogroup"
    return {}, pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def site() -> Iterator[Site]:
    """A place for the set-up, as the page about installing it makes one."""
    if connection.vendor != "postgresql" or "REDIS_URL" not in os.environ:
        pytest.skip("production needs PostgreSQL and Redis")
    if shutil.which("nginx") is None and "CI" not in os.environ:
        pytest.skip("no nginx on this machine")
    folder = Path(tempfile.mkdtemp(prefix="imagehub-"))  # pytest's own folders are closed to other users
    identity, nginx_user = somebody()
    try:
        shutil.copy(django_settings.BASE_DIR / "config.yaml", folder)
        for name in ("media", "models", "training", "scraping"):
            (folder / name).mkdir()
        if identity:
            user, group = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid
            for path in [folder, *folder.iterdir()]:
                os.chown(path, user, group)
        folder.chmod(0o750)
        shipped.make_certificate(folder)
        yield Site(folder, free_port(), free_port(), free_port(), identity, nginx_user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment(site: Site, process_env) -> dict[str, str]:
    kept = ("IMAGEHUB_EXTRA_APPS", "DATABASE_URL")
    differing = {name: process_env[name] for name in kept} | {
        "REDIS_URL": os.environ["REDIS_URL"],
        "IMAGEHUB_SECRET_KEY": secrets.token_urlsafe(64),
        "PATH": os.environ["PATH"],
        "IMAGEHUB_HEARTBEAT": str(site.folder / "heartbeat"),
    }
    return shipped.environment(site, differing)


@pytest.fixture
def nginx(site: Site) -> Iterator[subprocess.Popen]:
    argv = ["nginx", "-e", str(site.folder / "nginx.log"), "-c", str(shipped.nginx_configuration(site))]
    process = subprocess.Popen(argv, start_new_session=True)
    yield process
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def services_of_the_site(site: Site, environment) -> Iterator[dict[str, Unit]]:
    argv = [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
    collecting = subprocess.Popen(
        argv, cwd=django_settings.BASE_DIR, env=environment, umask=0o027, **site.identity
    )
    started: dict[str, Unit] = {}
    try:
        for cluster in Cluster:
            started[cluster] = Unit("imagehub-cluster@.service", site, environment, instance=cluster.value)
        assert collecting.wait(timeout=START_SECONDS) == 0
        started["web"] = Unit("imagehub-web.service", site, environment)
        for unit in started.values():
            unit.wait_until_it_says("READY=1", seconds=START_SECONDS)
        yield started
    finally:
        for unit in started.values():
            unit.clear()


class Client(requests.Session):
    """Somebody outside, who knows the site by its name."""

    def __init__(self, site: Site, token: str = "") -> None:
        super().__init__()
        self.base = f"https://127.0.0.1:{site.https_port}"
        self._certificate = str(site.folder / "fullchain.pem")
        self.headers["Host"] = HOST
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def request(self, method, path, **options):
        return super().request(method, self.base + path, timeout=60, verify=self._certificate, **options)


def declare_upload(site: Site, token: str, size_bytes: int) -> tuple[str, str]:
    """Announce an upload of this size and send none of it. Returns the head of the answer, and its body."""
    context = ssl.create_default_context(cafile=str(site.folder / "fullchain.pem"))
    with (
        socket.create_connection(("127.0.0.1", site.https_port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as line,
    ):
        line.sendall(
            f"POST /api/images/upload HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {size_bytes}\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.rstrip().endswith((b"}", b"0")):
            part = line.recv(65536)
            if not part:
                break
            answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    return head, body


def noise(side: int) -> bytes:
    """A picture that takes three bytes for each pixel."""
    content = BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(content, "PNG", compress_level=0)
    return content.getvalue()


def test_the_shipped_set_up_serves_makes_pictures_and_stops(site, environment, nginx, services_of_the_site):
    started = services_of_the_site
    starter_model()
    owner, _ = services.find_or_create_user("operator@example.com", is_staff=True)
    _, token = services.create_token(owner, name="test", expires_at=None, scopes=[Scope.ADMIN])
    anybody, operator = Client(site), Client(site, token)
    wait_for(
        lambda: anybody.get("/api/health/ready").status_code == 200, seconds=60, what="the set-up is ready"
    )

    # Probes of containers, of which the first has to name the site.
    probe = shipped.health_check("web", site)
    by_proxy = environment | {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    subprocess.run([sys.executable, *probe[1:]], env=by_proxy, check=True, timeout=20)
    stranger = environment | {"IMAGEHUB_ALLOWED_HOSTS": "127.0.0.1"}
    assert subprocess.run([sys.executable, *probe[1:]], env=stranger, check=False, timeout=20).returncode == 1
    subprocess.run(shipped.health_check("worker", site), env=environment, check=True, timeout=20)

    # Plain HTTP leads to TLS; pages come with their styles.
    plain = requests.get(
        f"http://127.0.0.1:{site.http_port}/x?y=1", headers={"Host": HOST}, allow_redirects=False, timeout=20
    )
    assert (plain.status_code, plain.headers["Location"]) == (308, f"https://{HOST}/x?y=1")
    page = anybody.get("/admin/login/")
    style = next(part for part in page.text.split('"') if part.startswith("/static/") and ".css" in part)
    sheet = anybody.get(style)
    assert (page.status_code, sheet.status_code) == (200, 200)
    assert "immutable" in sheet.headers["Cache-Control"]
    assert "X-Forwarded-Proto" not in page.headers

    # A picture, followed by its stream of events, which nothing on the way holds back.
    made = operator.post("/api/generate", json={"prompt": "a red heart on a white background", "seed": 7})
    assert made.status_code == 201, made.text
    job = made.json()["id"]
    with operator.get(f"/api/jobs/{job}/events", stream=True) as events:
        assert events.headers["Content-Type"].startswith("text/event-stream")
        lines = events.iter_lines()
        assert next(line for line in lines if line.startswith(b"event:"))
        first_came_while = GenerationJob.objects.get(pk=job).status
        assert list(lines)  # until it has ended
    assert first_came_while in {JobStatus.QUEUED, JobStatus.RUNNING}
    picture = operator.get(f"/api/jobs/{job}").json()
    assert picture["status"] == "completed", picture

    # Its file comes from nginx, with all that the application says about it.
    address = picture["images"][0]["file_url"]
    decided = requests.get(
        f"http://127.0.0.1:{site.web_port}{address}",
        headers={"Host": HOST, "Authorization": f"Bearer {token}", "X-Forwarded-Proto": "https"},
        timeout=20,
    )
    place = decided.headers["X-Accel-Redirect"]
    file = operator.get(address)
    assert (decided.content, place.partition("/protected/")[0]) == (b"", "")
    assert file.status_code == 200
    assert file.content.startswith(b"\x89PNG")
    assert sha256(file.content).hexdigest() in place
    assert file.content == (site.folder / "media" / place.removeprefix("/protected/")).read_bytes()
    of_one_answer = {"date", "connection", "content-length", "x-request-id", "x-accel-redirect", "allow"}
    for name in {name.lower() for name in decided.headers} - of_one_answer:
        assert file.headers.get(name) == decided.headers[name], name
    assert file.headers["X-Request-ID"]
    assert "X-Accel-Redirect" not in file.headers
    part = operator.get(address, headers={"Range": "bytes=0-7"})
    assert (part.status_code, len(part.content)) == (206, 8)
    assert operator.get(address, headers={"If-None-Match": file.headers["ETag"]}).status_code == 304
    assert anybody.get(address).status_code in {401, 404}
    assert operator.get(place).status_code == 404

    # What the application would take in, nginx lets through; what it would not, it says itself as long as it can.
    taken = operator.post("/api/images/upload", files={"files": ("large.png", noise(2640))})
    assert taken.status_code == 201, taken.text
    refused = operator.post("/api/images/upload", files={"files": ("larger.png", noise(2650))})
    assert (refused.status_code, "X-Request-ID" in refused.headers) == (413, True), refused.text
    head, body = declare_upload(site, token, 201 * MIB)
    assert head.startswith("HTTP/1.1 413 ")
    assert "x-request-id" in head.lower()
    assert "code" in body
    head, body = declare_upload(site, token, 211 * MIB)
    assert head.startswith("HTTP/1.1 413 ")
    assert "x-request-id" not in head.lower()
    assert '"code":"too_large"' in body

    # SIGTERM to the main process alone: the picture in the making goes back to the queue, and nothing is left.
    long = operator.post("/api/generate", json={"prompt": "a blue circle", "n": 4, "steps": 150, "seed": 1})
    assert long.status_code == 201, long.text
    row = GenerationJob.objects.get(pk=long.json()["id"])
    wait_for(
        lambda: GenerationJob.objects.filter(pk=row.pk, status=JobStatus.RUNNING).exists(),
        seconds=60,
        what="the job runs",
    )
    generation = started[Cluster.GENERATION]
    generation.wait_until_it_says("WATCHDOG=1", seconds=30)
    assert generation.stop() == 0
    assert shipped.members_of(generation.process.pid) == []
    row.refresh_from_db()
    assert (row.status, row.attempt) == (JobStatus.QUEUED, 0)

    # New processes take over from old ones without a request that fails.
    web = started["web"]
    before = shipped.members_of(web.process.pid)
    web.process.send_signal(web.reload_signal)

    def exchanged() -> bool:
        assert anybody.get("/api/health/live").status_code == 200
        return len(set(shipped.members_of(web.process.pid)) & set(before)) == 1

    wait_for(exchanged, seconds=60, what="the web processes are exchanged")

    others = [unit for unit in started.values() if unit is not generation]
    for unit in others:  # once: a second signal could meet a process that has put its handlers away already
        unit.process.send_signal(signal.SIGTERM)
    assert [unit.process.wait(timeout=unit.stop_seconds) for unit in others] == [0] * 4
    assert [shipped.members_of(unit.process.pid) for unit in started.values()] == [[]] * 5
    away = anybody.get("/api/health/live")
    assert (away.status_code, away.json()["code"], away.headers["Retry-After"]) == (503, "unavailable", "5")
    logs = "".join(unit.log.read_text() for unit in started.values())
    # But for the health check that was asked with a wrong name.
    assert "Traceback" not in "".join(line for line in logs.splitlines() if "DisallowedHost" not in line)
    assert "red heart" not in logs
    assert token not in logs
