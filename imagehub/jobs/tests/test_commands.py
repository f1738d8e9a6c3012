import os
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Task
from django_q.scheduler import scheduler

from imagehub.jobs import presence, tasks
from imagehub.jobs.clusters import Cluster
from imagehub.jobs.models import JobStatus, WorkerPresence
from imagehub.jobs.schedules import ensure_schedules
from imagehub.jobs.tests.errands.models import Errand
from imagehub.jobs.tests.factories import ErrandFactory
from imagehub.roots import logs_root

pytestmark = pytest.mark.django_db


def lose_a_worker() -> Errand:
    ErrandFactory()
    job = Errand.objects.claim(worker="gone")
    Errand.objects.update(lease_until=Now() - timedelta(seconds=1))
    return job


def reap(*options: str) -> str:
    output = StringIO()
    call_command("reap_jobs", *options, stdout=output)
    return output.getvalue()


def test_reap_jobs_takes_jobs_from_lost_workers():
    job = lose_a_worker()

    assert "Took 1 jobs" in reap()

    job.refresh_from_db()
    assert job.status == JobStatus.QUEUED


def test_a_dry_run_says_what_would_be_done_and_does_nothing():
    job = lose_a_worker()

    assert "errand: 1 lost, 0 queued" in reap("--dry-run")

    job.refresh_from_db()
    assert job.status == JobStatus.RUNNING


def test_a_misspelt_cluster_does_not_start():
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("qcluster", "scrapping")


def test_the_schedules_exist_once_and_keep_what_an_operator_changed():
    ensure_schedules()
    Schedule.objects.filter(name="Reap lost jobs").update(minutes=5)

    ensure_schedules()

    assert Schedule.objects.filter(func="imagehub.jobs.tasks.reap").count() == 1
    assert Schedule.objects.get(func="imagehub.jobs.tasks.reap").minutes == 5


@pytest.mark.django_db(transaction=True)
def test_the_scheduler_of_django_q_runs_them():
    Schedule.objects.all().delete()  # those of other apps
    ensure_schedules()
    Schedule.objects.update(next_run=timezone.now() - timedelta(minutes=1))

    scheduler()

    queued = [message.task for message in OrmQ.objects.filter(key=Cluster.DEFAULT)]
    assert sorted(task["func"] for task in queued) == [
        "imagehub.jobs.tasks.prune",
        "imagehub.jobs.tasks.reap",
    ]
    assert all(task["save"] is False for task in queued)


def test_pruning_forgets_old_results_logs_and_clusters_long_gone(settings):
    for days in (1, 40):
        Task.objects.create(
            id=f"t{days}", name=f"t{days}", func="f", started=timezone.now(),
            stopped=timezone.now() - timedelta(days=days), success=False,
        )  # fmt: skip
    presence.announce(Cluster.DEFAULT)
    gone = presence.announce(Cluster.DEFAULT)
    WorkerPresence.objects.filter(pk=gone.pk).update(seen_at=Now() - timedelta(days=2))

    logs_root().mkdir()
    for name in ("old.log", "old.log.1", "new.log"):
        (logs_root() / name).touch()
        if name.startswith("old"):
            os.utime(logs_root() / name, (0, 0))

    tasks.prune()

    assert [path.name for path in logs_root().iterdir()] == ["new.log"]
    assert list(Task.objects.values_list("pk", flat=True)) == ["t1"]
    assert WorkerPresence.objects.count() == 1


def test_only_clusters_seen_lately_count_as_live():
    row = presence.announce(Cluster.DEFAULT)
    assert presence.live(Cluster.DEFAULT).exists()
    assert not presence.live(Cluster.GENERATION).exists()

    WorkerPresence.objects.filter(pk=row.pk).update(seen_at=Now() - timedelta(seconds=31))
    assert not presence.live(Cluster.DEFAULT).exists()

    presence.stamp()
    assert presence.live(Cluster.DEFAULT).exists()


class TestWatch:
    def silent_cluster(self) -> presence.Watch:
        row = presence.announce(Cluster.DEFAULT)
        WorkerPresence.objects.filter(pk=row.pk).update(seen_at=Now() - timedelta(seconds=60))
        watch = presence.Watch()
        watch._patient_until = 0
        return watch

    def test_a_cluster_that_was_not_seen_is_silent(self):
        assert self.silent_cluster().is_silent(os.getpid())

    def test_a_cluster_that_was_seen_is_not(self):
        watch = self.silent_cluster()
        WorkerPresence.objects.update(seen_at=Now())

        assert not watch.is_silent(os.getpid())

    def test_the_same_process_id_on_another_host_says_nothing(self):
        watch = self.silent_cluster()
        WorkerPresence.objects.create(cluster="default", host="elsewhere", pid=os.getpid())

        assert watch.is_silent(os.getpid())

    def test_it_is_patient_at_the_start_after_an_outage_and_after_sleep(self):
        self.silent_cluster()
        assert not presence.Watch().is_silent(os.getpid())
        watch = self.silent_cluster()
        watch.be_patient()
        assert not watch.is_silent(os.getpid())
        watch = self.silent_cluster()
        watch._last_look -= 20
        assert not watch.is_silent(os.getpid())
