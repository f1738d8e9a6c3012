"""The first page of the admin, and what can be done from it, with jobs of every kind."""

import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from generation.models import GenerationJob, SetRun
from generation.tests.factories import GenerationJobFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.admin.acts import ActingAdmin
from imagehub.jobs.admin.jobs import JobAdmin
from imagehub.jobs.models import JobStatus, QueuePause, WorkerPresence
from imagehub.jobs.registry import kinds
from imagehub.operations import cockpit
from imagehub.operations.models import DiskAlert, DiskSnapshot, Purge
from imagehub.tests import world
from scraping.models import ScrapeJob
from scraping.tests.factories import ScrapeJobFactory
from training.models import LabelingJob, TrainingRun
from training.tests.factories import TrainingRunFactory

pytestmark = pytest.mark.django_db

INDEX, PARTS, RELOAD = "/admin/", "/admin/cockpit/", "/admin/cockpit/reload/"


@pytest.fixture(autouse=True)
def _nobody_has_looked():
    for key in (cockpit.COMMON_KEY, cockpit.HEALTH_KEY, cockpit.DISKS_KEY):
        cache.delete_many([key, f"{key}:turn"])


@pytest.fixture
def staff():
    client = Client()
    client.force_login(UserFactory(staff=True))
    return client


@pytest.fixture
def allowed(settings):
    """Sign in somebody of the staff who may do what is said, and nothing else."""
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]

    def sign_in(*codenames: str) -> Client:
        user = UserFactory(staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        assert user.user_permissions.count() == len(codenames)
        client = Client()
        client.force_login(user, backend=settings.AUTHENTICATION_BACKENDS[0])
        return client

    return sign_in


def labeling(**fields) -> LabelingJob:
    return LabelingJob.objects.create(
        owner=UserFactory(staff=True), task="caption", model="starter", total=3, **fields
    )


MAKERS = {
    GenerationJob: GenerationJobFactory,
    TrainingRun: TrainingRunFactory,
    LabelingJob: labeling,
    ScrapeJob: ScrapeJobFactory,
}


def queued(model, **fields):
    job = MAKERS[model](**fields)
    model.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED, queued_at=timezone.now())
    return job


def running(model, **changes):
    queued(model)
    job = model.objects.claim(worker="here:1")
    model.objects.filter(pk=job.pk).update(**changes)
    return job


def failed(model, code="engine_error"):
    job = queued(model)
    model.objects.filter(pk=job.pk).update(
        status=JobStatus.FAILED, finished_at=timezone.now(), error_code=code, error_detail="It failed."
    )
    return job


def url_of(job, page="change"):
    return reverse(f"admin:{job._meta.app_label}_{job._meta.model_name}_{page}", args=[job.pk])


def list_of(model, page="changelist"):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}")


def page(client, address=INDEX) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


class TestWhatItShows:
    def test_all_kinds_of_work_with_their_progress_and_the_way_to_them(self, staff):
        jobs = [running(model, progress=37) for model in MAKERS]

        html = page(staff)

        for job in jobs:
            assert url_of(job) in html
            assert url_of(job, "act") in html
            assert list_of(type(job)) in html
        assert html.count('value="37"') == len(jobs)

    def test_what_has_failed_and_how_often(self, staff):
        for _ in range(3):
            failed(GenerationJob, "out_of_memory")
        job = failed(ScrapeJob, "nothing_found")
        old = failed(TrainingRun, "diverged")
        TrainingRun.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(hours=25))

        sight = staff.get(INDEX).context["sight"]

        counts = [("generation", "out_of_memory", 3), ("scraping", "nothing_found", 1)]
        assert list(sight.failures.counts) == counts
        assert sight.failures.latest[0].row == job
        assert len(sight.failures.latest) == 4

    def test_clusters_that_live_and_those_that_are_missed(self, staff):
        WorkerPresence.objects.create(
            cluster="training",
            host="gpu-1",
            pid=7,
            facts={"models": ["sd15"], "engine": {"device": "cuda:0"}},
        )
        WorkerPresence.objects.create(
            cluster="scraping", host="web-1", pid=8, seen_at=timezone.now() - timedelta(minutes=2)
        )

        response = staff.get(INDEX)
        html = response.content.decode()
        clusters = {state.name: state for state in response.context["sight"].clusters if state.row}

        assert clusters["training"].is_alive
        assert not clusters["scraping"].is_alive
        assert list(clusters["training"].facts) == [("engine device", "cuda:0"), ("models", "sd15")]
        assert html.count("Missing: no live worker.") == 3
        assert "No live worker: default, generation, scraping." in html

    def test_disks_alerts_and_purges(self, staff):
        filesystem = {
            "name": "media", "mount": "/", "total_bytes": 1000, "used_bytes": 900, "free_bytes": 100,
            "percent_used": 90.0, "inodes_percent_used": 1.0, "roots": ["media"],
        }  # fmt: skip
        for host in ("a", "a", "b"):
            DiskSnapshot.objects.create(host=host, seconds=1, filesystems=[filesystem], usage={})
        DiskAlert.objects.create(host="a", filesystem="media", percent_used=91, threshold_percent=85)
        purge = Purge.objects.create(
            kind="scraping",
            origin="clock",
            older_than_days=30,
            state="failed",
            result={"problem": "It broke"},
        )

        html = page(staff)

        assert html.count(">90 %<") == 2
        assert "media of a at 91 %" in html
        assert url_of(purge) in html
        assert "Failed: It broke" in html
        assert "after 30 days" in html

    def test_limits_that_hold(self, staff, set_config):
        set_config(
            "rate_limits: {upload: {limit: 0, window_seconds: 60}, generate: {limit: 77, window_seconds: 60}}"
        )

        limits = {limit.group: limit.limit for limit in staff.get(INDEX).context["sight"].limits}

        assert limits["generate"] == 77
        assert "upload" not in limits

    def test_the_same_alone_for_the_script_of_the_page(self, staff):
        running(GenerationJob, progress=37)
        parts = page(staff, PARTS)

        assert 'value="37"' in parts
        assert "<html" not in parts
        assert set(re.findall(r'id="(cockpit-[a-z]+)"', parts)) < set(
            re.findall(r'id="([a-z-]+)"', page(staff))
        )
        assert "style=" not in parts
        assert "<script" not in parts

    def test_as_much_by_as_many_queries_however_much_there_is(self, staff):
        def queries() -> int:
            cache.clear()  # how fast queues move is known for a while
            with CaptureQueriesContext(connection) as captured:
                page(staff)
            assert not any('"albums_image"' in query["sql"] for query in captured)
            return len(captured)

        for model in MAKERS:
            running(model)
            failed(model)
            queued(model)
        before = queries()
        for _ in range(4):
            for model in MAKERS:
                running(model)
                failed(model)
                queued(model)

        assert queries() <= before

    def test_django_q_s_own_pages_to_whom_they_are_open(self, staff, admin_client):
        assert "/admin/django_q/failure/" in page(admin_client, PARTS)
        assert "/admin/django_q/" not in page(staff, PARTS)


class TestWhoMayDoWhat:
    def test_who_may_only_look_sees_all_of_a_kind_and_no_button(self, allowed):
        client, job = allowed("view_generationjob"), running(GenerationJob)

        html = page(client)

        assert url_of(job) in html
        assert "<button" not in html.partition('id="cockpit"')[2].partition('id="content-main"')[0]
        assert "formaction" not in html
        assert client.post(url_of(job, "act"), {"act": "cancel"}).status_code == 403
        assert client.post(list_of(GenerationJob, "pause")).status_code == 403
        assert client.post(RELOAD).status_code == 403
        for address in (url_of(job), list_of(GenerationJob)):
            assert 'id="acts"' not in page(client, address)
            assert 'id="switch"' not in page(client, address)
        job.refresh_from_db()
        assert (job.status, job.cancel_requested_at) == (JobStatus.RUNNING, None)

    def test_who_may_not_look_at_a_kind_sees_nothing_of_it(self, allowed):
        client = allowed("view_trainingrun")
        hidden = [running(GenerationJob), failed(GenerationJob), running(ScrapeJob), failed(ScrapeJob)]
        seen = failed(TrainingRun)
        WorkerPresence.objects.create(cluster="generation", host="gpu-1", pid=7)
        Purge.objects.create(kind="scraping", origin="clock", older_than_days=30)

        html = page(client) + page(client, PARTS)

        assert url_of(seen) in html
        for job in hidden:
            assert str(job.pk) not in html
            assert list_of(type(job)) not in html
        for secret in ("gpu-1", "Purges", 'id="cockpit-clusters"', 'id="cockpit-disks"'):
            assert secret not in html
        sight = client.get(INDEX).context["sight"]
        assert [queue.kind for queue in sight.queues] == ["training"]

    def test_who_may_change_a_kind_acts_on_it_alone(self, allowed):
        client = allowed("view_generationjob", "change_generationjob", "view_scrapejob")
        mine, other = running(GenerationJob), running(ScrapeJob)

        html = page(client)

        assert url_of(mine, "act") in html
        assert url_of(other, "act") not in html
        assert client.post(url_of(other, "act"), {"act": "cancel"}).status_code == 403
        assert client.post(url_of(mine, "act"), {"act": "cancel"}).status_code == 302

    def test_nobody_else_sees_it(self, client):
        client.force_login(UserFactory())
        for address in (INDEX, PARTS):
            assert client.get(address).status_code == 302


class TestActing:
    @pytest.mark.parametrize("model", MAKERS)
    def test_a_job_of_any_kind_is_cancelled_and_one_is_back_where_one_was(self, staff, model):
        job = running(model)

        response = staff.post(url_of(job, "act"), {"act": "cancel", "cockpit": "yes"}, follow=True)

        job.refresh_from_db()
        assert job.cancel_requested_at
        assert response.redirect_chain == [(INDEX, 302)]
        assert "is cancelled, or about to be." in response.content.decode()
        assert "Stopping" in response.content.decode()
        assert AuditEntry.objects.filter(action=f"{model._meta.model_name}.cancel").exists()

    @pytest.mark.parametrize("model", MAKERS)
    def test_a_queue_is_paused_and_goes_on(self, staff, model):
        queued(model)
        staff.post(list_of(model, "pause"), {"reason": "new \0disks", "cockpit": "yes"})

        assert QueuePause.objects.get().reason == "new disks"
        assert "new disks" in page(staff)
        assert model.objects.claim(worker="w") is None
        assert staff.post(list_of(model, "resume"), {"cockpit": "yes"})["Location"] == INDEX
        assert not QueuePause.objects.exists()

    def test_the_configuration_is_read_again(self, staff, settings):
        response = staff.post(RELOAD, follow=True)

        assert "The configuration was read again." in response.content.decode()
        assert AuditEntry.objects.get(action="config.reload").actor_name
        settings.CONFIG_FILE.write_text("rate_limits: {generate: nonsense}")
        assert "rate_limits.generate" in staff.post(RELOAD, follow=True).content.decode()

    def test_getting_a_page_never_acts(self, staff):
        job, known = running(GenerationJob), AuditEntry.objects.count()
        addresses = [
            f"{url_of(job, 'act')}?act=cancel", list_of(GenerationJob, "pause"), list_of(GenerationJob, "resume"), RELOAD,
        ]  # fmt: skip

        assert [staff.get(address).status_code for address in addresses] == [405] * 4
        job.refresh_from_db()
        assert job.cancel_requested_at is None
        assert not QueuePause.objects.exists()
        assert AuditEntry.objects.count() == known

    def test_other_sites_cannot_act(self):
        job, client = running(GenerationJob), Client(enforce_csrf_checks=True)
        client.force_login(UserFactory(staff=True))

        for address in (url_of(job, "act"), list_of(GenerationJob, "pause"), RELOAD):
            assert client.post(address, {"act": "cancel"}).status_code == 403
        job.refresh_from_db()
        assert job.cancel_requested_at is None


class TestPagesOfJobs:
    def test_every_kind_has_one_that_can_cancel_and_shows_a_log(self):
        acting = [one for one in admin.site._registry.values() if isinstance(one, ActingAdmin)]
        of_jobs = {one.model for one in acting if isinstance(one, JobAdmin)}
        ours = {kind.model for kind in kinds() if kind.model.__module__.partition(".")[0] != "imagehub"}

        assert of_jobs == ours == set(MAKERS)
        assert {one.model for one in acting} == {*MAKERS, SetRun}
        assert all(one.purge_kind for one in acting)
        assert all("cancel" in one.acts for one in acting)

    @pytest.mark.parametrize("model", MAKERS)
    def test_they_say_how_it_goes_and_offer_what_makes_sense(self, staff, model):
        job = running(model, progress=37, message="hard at work")

        html = page(staff, url_of(job))
        listed = page(staff, list_of(model))

        assert 'value="37"' in html
        assert "Running: No live worker" in html
        assert re.search(r'name="act" value="cancel"', html)
        assert 'value="resume"' not in html
        assert 'id="log"' in html
        assert "admin_live.js" in html
        assert "Cancel selected" in listed
        assert 'id="queue"' in listed

    @pytest.mark.parametrize("model", MAKERS)
    def test_jobs_that_are_over_say_why(self, staff, model):
        html = page(staff, url_of(failed(model)))

        assert "Failed: It failed." in html
        assert 'value="cancel"' not in html
        assert "admin_live.js" not in html


@pytest.fixture
def superuser(admin_client):
    """Somebody who sees all lists there are, in a system where something stands in each."""
    world.build()
    return admin_client


def test_no_list_breaks_over_what_no_row_can_hold(superuser):
    for model, page_of_model in admin.site._registry.items():
        where = list_of(model)
        named = [item[0] if isinstance(item, (list, tuple)) else item for item in page_of_model.list_filter]
        fields = [item if isinstance(item, str) else item.parameter_name for item in named]
        asked = [f"{field}{lookup}" for field in fields for lookup in ("", "__exact")] + [
            "q",
            "o",
            "p",
            "a\0",
        ]
        if page_of_model.date_hierarchy:
            asked.append(f"{page_of_model.date_hierarchy}__year")
        for name in asked:
            response = superuser.get(where, {name: "a\0"})
            assert response.status_code == 302, f"{where} {name}"
            assert response["Location"] == f"{where}?e=1"
        assert superuser.get(f"{where}?e=1").status_code == 200
        assert superuser.get(f"{where}a%00b/change/").status_code == 404


def test_a_set_run_is_cancelled_and_made_anew_from_its_page(staff):
    run = SetRun.objects.create(owner=UserFactory(staff=True), theme="linocut", total=2)
    for index in range(2):
        queued(GenerationJob, set_run=run, set_index=index)
    run_page = url_of(run)
    assert "0 of 2 pictures." in page(staff, run_page)
    assert url_of(run, "act") in page(staff)  # with how far it is

    said = staff.post(url_of(run, "act"), {"act": "cancel"}, follow=True).content.decode()
    assert "is not made." in said
    assert run_page not in page(staff)
    said = staff.post(url_of(run, "act"), {"act": "retry"}, follow=True).content.decode()
    assert "are queued again." in said
    assert GenerationJob.objects.filter(set_run=run, status=JobStatus.QUEUED).count() == 2


def test_the_way_to_the_purge_of_what_is_old(staff, monkeypatch):
    where = "/admin/operations/purge/add/?kind=scraping"
    job = failed(ScrapeJob)
    purges = type(admin.site.get_model_admin(Purge))
    for may in (True, False):
        monkeypatch.setattr(purges, "has_add_permission", lambda *_, may=may: may)
        assert (where in page(staff, list_of(ScrapeJob))) is may
        assert (where in page(staff, url_of(job))) is may
    monkeypatch.undo()
    form = staff.get(where).context["adminform"].form
    assert form["kind"].value() == "scraping"
    assert re.search(r'<option value="scraping" selected', page(staff, where))
