"""Web and clusters on machines of their own, which are cut off and lose their power: every job ends once all the same."""

import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import connection

from albums import consistency
from albums.models import Image
from generation.models import GenerationJob
from generation.tests.factories import starter_model
from imagehub.accounts.services import create_token
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs import presence
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus
from imagehub.jobs.queue import ring
from imagehub.jobs.tests.errands.models import Effect, Errand
from imagehub.jobs.tests.errands.work import GO
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.tests.network import Machine, Network, is_possible, network
from imagehub.tests.storage import s3_server

pytestmark = [
    pytest.mark.skipif(connection.vendor != "postgresql", reason="machines cannot share a SQLite database"),
    pytest.mark.skipif(not django_settings.REDIS_URL, reason="needs REDIS_URL"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
]

MANAGE = str(django_settings.BASE_DIR / "manage.py")
WEB_PORT = 8000
PICTURES = {"prompt": "a red heart on a white background", "steps": 10, "n": 2}
CONFIG = "{storage: {minimum_free_bytes: 0}, rate_limits: {generate: {limit: 0, window_seconds: 60}}}"
PATIENCE_SECONDS = 150.0


def wait_for(condition: Callable[[], object], *, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {PATIENCE_SECONDS} s")
        time.sleep(0.1)


class Site:
    """The machines of one installation, with nothing in common but a database, a cache and a bucket."""

    def __init__(self, lan: Network, env: dict[str, str], folder: Path, bucket: str, s3: str) -> None:
        self._lan, self._folder = lan, folder
        database, redis, store = map(urlsplit, (env["DATABASE_URL"], django_settings.REDIS_URL, s3))
        postgres_at = lan.relay(str(database.hostname), database.port or 5432)
        sign_in = database.netloc.rpartition("@")[0]
        self._env = env | {
            "DATABASE_URL": database._replace(netloc=f"{sign_in}@{postgres_at}").geturl(),
            "REDIS_URL": f"redis://{lan.relay(str(redis.hostname), redis.port or 6379)}{redis.path}",
            "IMAGEHUB_STORAGE": "s3",
            "IMAGEHUB_S3_BUCKET": s3_server.BUCKET,
            "IMAGEHUB_S3_PREFIX": bucket,
            "IMAGEHUB_S3_ENDPOINT": f"http://{lan.relay(str(store.hostname), store.port or 80)}",
            "IMAGEHUB_S3_ACCESS_KEY": s3_server.KEY,
            "IMAGEHUB_S3_SECRET_KEY": s3_server.SECRET,
            "IMAGEHUB_TEST_HASTE": "1",
            "IMAGEHUB_LOG_LEVEL": "WARNING",
        }

    def machine(self, name: str) -> Machine:
        return self._lan.machine(name)

    def start_web(self, machine: Machine) -> str:
        """Start the web server of a machine, and return its address when it answers."""
        argv = [sys.executable, "-m", "uvicorn", "imagehub.asgi:application", "--log-level", "error"]
        env = self._env_of(machine) | {"IMAGEHUB_ALLOWED_HOSTS": machine.address}
        machine.start([*argv, "--host", machine.address, "--port", str(WEB_PORT)], env)
        address = f"http://{machine.address}:{WEB_PORT}"

        def answers() -> bool:
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/api/health/live", timeout=5).close()
                return True
            return False

        wait_for(answers, what="the web server answers")
        return address

    def start_clusters(self, machine: Machine) -> None:
        for cluster in ("generation", "scraping"):  # errands are the scraping cluster's
            env = self._env_of(machine) | {"Q_CLUSTER_NAME": cluster}
            machine.start([sys.executable, MANAGE, "qcluster", cluster], env)

    def _env_of(self, machine: Machine) -> dict[str, str]:
        own = self.folder_of(machine)
        own.mkdir(exist_ok=True)
        return self._env | {"IMAGEHUB_VAR": str(own)}

    def folder_of(self, machine: Machine) -> Path:
        return self._folder / machine.name


@pytest.fixture
def site(process_env, tmp_path, bucket, s3_service) -> Iterator[Site]:
    if not is_possible():
        pytest.skip("no network namespaces can be made here")
    with network() as lan:
        yield Site(lan, process_env, tmp_path, bucket, s3_service)


def ask_for_pictures(address: str, token: str, number: int) -> str:
    body = json.dumps(PICTURES | {"seed": 10 * number}).encode()  # no picture is like another
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/generate", body, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(json.load(response)["id"])


def has_taken(model: Any, machine: Machine) -> bool:
    return model.objects.filter(worker__startswith=f"{machine.name}:").exists()


def worker_of(errand: Errand, status: JobStatus = JobStatus.RUNNING) -> str:
    """Return the name of the machine that works on it, or did; nothing where its status is another one."""
    workers = Errand.objects.filter(pk=errand.pk, status=status).values_list("worker", flat=True)
    return next(iter(workers), "").partition(":")[0]


def test_machines_that_are_cut_off_and_die_leave_every_job_done_once(site, set_config, monkeypatch):
    starter_model()
    set_config(CONFIG)
    owner = UserFactory(staff=True)
    _, token = create_token(owner, name="test", expires_at=None)
    web, first, second = map(site.machine, ("web", "first", "second"))
    site.start_clusters(first)
    address = site.start_web(web)
    errands = [make_errand(owner) for _ in range(2)]
    jobs = [ask_for_pictures(address, token, number) for number in range(2)]
    wait_for(lambda: has_taken(Errand, first), what="the first machine works")

    # Work that outgrows one machine gets another one, and nothing else.
    site.start_clusters(second)
    wait_for(lambda: live_clusters(second) == 2, what="the second machine is there")
    errands += [make_errand(owner) for _ in range(6)]
    jobs += [ask_for_pictures(address, token, number) for number in range(2, 6)]
    GenerationJob.objects.update(max_attempts=9)  # each loss counts, and a busy machine may add to them
    for model in (Errand, GenerationJob):
        wait_for(lambda m=model: has_taken(m, second), what="the second machine takes a share")

    long = make_errand(owner, behaviour="waits_for_go", priority=1)
    wait_for(lambda: worker_of(long), what="somebody takes the long errand")
    cut_off, other = (first, second) if worker_of(long) == first.name else (second, first)
    cut_off.cut_off()
    wait_for(lambda: worker_of(long) == other.name, what="the other machine takes it over")
    cut_off.connect()
    site.folder_of(cut_off).joinpath(GO).touch()
    errands.append(make_errand(owner))
    wait_for(lambda: worker_of(errands[-1], JobStatus.COMPLETED), what="the machine that is back does others")
    assert (worker_of(long), long.effects.count()) == (other.name, 0)  # what it did late was not written
    other.kill()
    wait_for(lambda: worker_of(long, JobStatus.COMPLETED) == cut_off.name, what="it takes the long one back")
    for model in (Errand, GenerationJob):
        wait_for(lambda m=model: not m.objects.active().exists(), what="all work ends")
    cut_off.kill()

    errands.append(long)
    assert set(Errand.objects.values_list("status", flat=True)) == {JobStatus.COMPLETED}
    assert Counter(Effect.objects.values_list("errand", flat=True)) == Counter(e.pk for e in errands)
    ended = {str(pk): status for pk, status in GenerationJob.objects.values_list("pk", "status")}
    assert ended == dict.fromkeys(jobs, JobStatus.COMPLETED)
    made = Counter(map(str, Image.objects.values_list("source_id", flat=True)))
    assert made == dict.fromkeys(jobs, PICTURES["n"])
    monkeypatch.setattr(consistency, "UNTOUCHED_FOR", timedelta(0))
    consistency.remove_leftovers(consistency.files_without_rows())
    report = consistency.check()
    assert (report.rows_without_files, report.files_without_rows) == ([], [])
    assert report.files == report.images == PICTURES["n"] * len(jobs)


def make_errand(owner: User, *, behaviour: str = "good", priority: int = 0) -> Errand:
    errand = ErrandFactory(owner=owner, seconds=1.0, behaviour=behaviour, priority=priority, max_attempts=9)
    ring(Cluster.SCRAPING)
    return errand


def live_clusters(machine: Machine) -> int:
    return presence.live().filter(host=machine.name).count()
