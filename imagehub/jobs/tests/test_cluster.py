"""Real clusters, killed in every way. Slow, because leases last twelve seconds of real time (twenty as they ship)."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.db.models import Sum

from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence
from imagehub.jobs.queue import ring
from imagehub.jobs.tests.errands.models import Effect, Errand
from imagehub.jobs.tests.factories import ErrandFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

SUPERVISED = """
import sys
from datetime import timedelta
import django; django.setup()
from imagehub.jobs import presence, supervisor
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.management.commands.supervise import cluster_service
presence.STALE = supervisor.STALE = timedelta(seconds=8)
presence.STARTUP_SECONDS = 12.0
supervisor.Supervisor([cluster_service(Cluster.SCRAPING)], grace_seconds=3).run()
"""


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def group(pid: int) -> list[int]:
    """Return the living processes of a session, zombies left out."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pid=,sid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listing.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and not row[2].startswith("Z")]


def called(word: str, session: int) -> list[int]:
    """Return the processes of a session whose title ends with a word."""
    titles = subprocess.run(["ps", "-e", "-o", "pid=,sid=,args="], capture_output=True, text=True, check=True)
    rows = [line.rstrip() for line in titles.stdout.splitlines()]
    return [int(row.split()[0]) for row in rows if int(row.split()[1]) == session and row.endswith(word)]


@contextmanager
def started(argv: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run a program in a session of its own, and leave nothing of it behind."""
    process = subprocess.Popen([sys.executable, *argv], env=env, start_new_session=True)
    try:
        yield process
    finally:
        for pid in group(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def cluster(env: dict[str, str]) -> Iterator[subprocess.Popen]:
    before = WorkerPresence.objects.count()
    argv = [str(settings.BASE_DIR / "manage.py"), "qcluster", "scraping"]
    with started(argv, env | {"Q_CLUSTER_NAME": "scraping", "IMAGEHUB_TEST_HASTE": "1"}) as process:
        wait_for(
            lambda: WorkerPresence.objects.count() > before and len(group(process.pid)) >= 5,
            seconds=60,
            what="the cluster starts",
        )
        yield process


def busy_worker(errand: Errand) -> int:
    wait_for(lambda: Errand.objects.get(pk=errand.pk).status == JobStatus.RUNNING, seconds=60, what="it runs")
    return int(Errand.objects.get(pk=errand.pk).worker.rpartition(":")[2])


def test_messages_delivered_three_times_and_killed_workers_leave_one_effect_a_job(process_env):
    owner = UserFactory()
    chance = random.Random(4)
    victims: Counter[str] = Counter()

    with cluster(process_env), cluster(process_env):
        # Not before both are there: the first one rings for itself, and may be done when the second one starts.
        errands = [ErrandFactory(owner=owner, seconds=0.5) for _ in range(16)]
        for _ in range(3 * len(errands)):
            ring(Cluster.SCRAPING)
        kills = 0
        while kills < 5:
            running = list(Errand.objects.filter(status=JobStatus.RUNNING).values_list("pk", "worker"))
            chance.shuffle(running)
            for pk, worker in running:
                if victims[pk] < 1:
                    os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
                    victims[pk] += 1
                    kills += 1
                    break
            if not Errand.objects.active().exists():
                break
            time.sleep(0.3)
        wait_for(lambda: not Errand.objects.active().exists(), seconds=120, what="every job ends")

    assert kills >= 3
    assert set(Errand.objects.values_list("status", flat=True)) == {JobStatus.COMPLETED}
    assert Counter(Effect.objects.values_list("errand", flat=True)) == Counter(e.pk for e in errands)
    assert Errand.objects.aggregate(n=Sum("attempt"))["n"] >= len(errands)


def test_sigterm_to_the_main_process_hands_the_running_job_back(process_env):
    errand = ErrandFactory(seconds=300)
    with cluster(process_env) as process:
        ring(Cluster.SCRAPING)
        busy_worker(errand)

        process.terminate()
        process.wait(timeout=30)

        wait_for(lambda: not group(process.pid), seconds=5, what="nothing is left")
    errand.refresh_from_db()
    assert (errand.status, errand.attempt) == (JobStatus.QUEUED, 0)
    assert not WorkerPresence.objects.exists()


def test_killing_the_main_process_leaves_no_orphans(process_env):
    errand = ErrandFactory(seconds=300)
    with cluster(process_env) as process:
        ring(Cluster.SCRAPING)
        busy_worker(errand)

        process.kill()

        wait_for(lambda: not group(process.pid), seconds=10, what="its processes end")


@pytest.mark.once
def test_a_cluster_whose_monitor_was_killed_ends_and_does_not_go_on_without_acknowledging(process_env):
    with cluster(process_env) as process:
        wait_for(lambda: called("monitor", process.pid), seconds=30, what="its monitor is there")

        os.kill(called("monitor", process.pid)[0], signal.SIGKILL)

        assert process.wait(timeout=60) != 0
        wait_for(lambda: not group(process.pid), seconds=10, what="its processes end")


def test_a_job_that_kills_its_worker_fails_and_the_next_one_runs(process_env):
    owner = UserFactory()
    poison = ErrandFactory(owner=owner, behaviour="kills_worker", max_attempts=1)
    good = ErrandFactory(owner=owner)

    with cluster(process_env):
        ring(Cluster.SCRAPING)
        wait_for(lambda: not Errand.objects.active().exists(), seconds=90, what="both end")

    poison.refresh_from_db()
    good.refresh_from_db()
    assert (poison.status, poison.error_code) == (JobStatus.FAILED, "worker_lost")
    assert good.status == JobStatus.COMPLETED


def test_a_cluster_whose_idle_worker_was_killed_is_started_anew(process_env):
    """The killed worker held the lock of Django-Q's queue: the cluster looks alive and takes nothing."""
    env = process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"}
    with started(["-c", SUPERVISED], env):
        wait_for(WorkerPresence.objects.exists, seconds=60, what="the cluster starts")
        first = WorkerPresence.objects.get()
        wait_for(
            lambda: first.seen_at != WorkerPresence.objects.get(pk=first.pk).seen_at,
            seconds=30,
            what="it works",
        )
        wait_for(lambda: called("idle", first.pid), seconds=30, what="its worker is idle again")

        os.kill(called("idle", first.pid)[0], signal.SIGKILL)
        errand = ErrandFactory()
        ring(Cluster.SCRAPING)

        wait_for(
            lambda: Errand.objects.get(pk=errand.pk).status == JobStatus.COMPLETED,
            seconds=90,
            what="the errand is done by a new cluster",
        )
        assert WorkerPresence.objects.exclude(pk=first.pk).exists()
    wait_for(lambda: not group(first.pid), seconds=10, what="the hung cluster is gone")


def test_the_supervisor_restarts_a_killed_cluster_and_takes_everything_down(process_env):
    env = process_env | {"DJANGO_SETTINGS_MODULE": "imagehub.settings"}
    with started(["-c", SUPERVISED], env) as supervisor:
        wait_for(WorkerPresence.objects.exists, seconds=60, what="the cluster starts")
        first = WorkerPresence.objects.get()

        os.kill(first.pid, signal.SIGKILL)

        wait_for(lambda: WorkerPresence.objects.count() == 2, seconds=30, what="another one starts")
        second = WorkerPresence.objects.exclude(pk=first.pk).get()
        supervisor.terminate()
        assert supervisor.wait(timeout=30) == 0
        assert group(first.pid) == group(second.pid) == []
