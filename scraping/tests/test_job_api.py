"""Crawls over the API: who is told what, and how they are cancelled, done again and reviewed."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from albums.tests.factories import AlbumFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from scraping.models import ScrapeJob
from scraping.services.folders import folder_of, log_of
from scraping.services.plans import Plan, config_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory

pytestmark = pytest.mark.django_db

PUBLIC = {
    "id", "kind", "status", "name", "description", "host", "progress", "step", "total_steps", "eta_seconds", "pages",
    "images_found", "images_saved", "album", "created_at", "queued_at", "started_at", "finished_at", "duration_seconds",
}  # fmt: skip
FOR_STAFF = {
    "priority", "attempt", "message", "queue_position", "possible", "reason", "error", "owner", "album_name", "visibility",
    "needs_review", "source_url", "config", "staging_path", "log_path", "counts", "page_counts", "end_reason",
    "is_truncated", "retry_of", "purged_at",
}  # fmt: skip
SECRET_URL = "https://gallery.example/set?key=hush"
START = "/api/scraping/start"
JOBS = "/api/scraping/jobs"


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


@pytest.fixture
def visitor():
    client = APIClient()
    client.force_authenticate(UserFactory())
    return client


def ended(status=JobStatus.FAILED, **fields):
    now = timezone.now()
    return ScrapeJobFactory(status=status, started_at=now, finished_at=now, **fields)


def running():
    ScrapeJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now())
    return ScrapeJob.objects.claim(worker="w")


def plan(**fields):
    return config_of(
        Plan(**{"start_urls": [SECRET_URL], "max_pages": 10, "max_images": 100, "min_side": 64} | fields)
    )


class TestWhoIsToldWhat:
    @pytest.mark.parametrize("path", ["/api/scraping/jobs/{pk}", "/api/scraping/jobs"])
    def test_everybody_that_it_is_there_and_how_it_goes(self, visitor, path):
        job = ended(
            config=plan(), message="busy with hush", error_code="x", error_detail="hush", worker="hush:1",
            images_found=5, images_saved=3, pages=2, description="Cards",
        )  # fmt: skip
        ScrapedImageFactory(job=job, url=f"{SECRET_URL}&n=1")

        for client in (APIClient(), visitor):
            answer = client.get(path.format(pk=job.pk)).json()
            told = answer["results"][0] if "results" in answer else answer
            assert set(told) == PUBLIC
            assert (told["kind"], told["status"], told["host"]) == ("scraping", "failed", "gallery.example")
            assert (told["name"], told["description"]) == (job.name, "Cards")
            assert (told["images_found"], told["images_saved"], told["pages"]) == (5, 3, 2)
            for secret in (job.owner.username, job.owner.email, "hush", "jobs/", "set?"):
                assert secret not in json.dumps(told)

    def test_staff_all_of_it(self, staff):
        before = ended()
        job = ended(
            config=plan(image_urls=["https://gallery.example/1.png"]), error_code="x", error_detail="It failed.",
            retry_of=before, end_reason="image_limit", is_truncated=True, needs_review=True, album_name="Cards",
        )  # fmt: skip
        ScrapedImageFactory(job=job)
        ScrapedImageFactory.create_batch(2, job=job, state="robots")
        ScrapedPageFactory(job=job, state="failed")
        ScrapedImageFactory(job=before)

        told = staff.get(f"{JOBS}/{job.pk}").json()

        assert set(told) == PUBLIC | FOR_STAFF
        assert told["source_url"] == SECRET_URL
        assert told["config"] == job.config
        assert told["staging_path"] == str(folder_of(job).root)
        assert told["log_path"] == str(log_of(job))
        assert told["error"] == {"code": "x", "detail": "It failed."}
        assert told["owner"] == job.owner.username
        assert told["retry_of"] == str(before.pk)
        assert (told["end_reason"], told["is_truncated"], told["needs_review"]) == ("image_limit", True, True)
        assert (told["visibility"], told["album_name"], told["purged_at"]) == ("private", "Cards", None)
        assert {state: count for state, count in told["counts"].items() if count} == {"saved": 1, "robots": 2}
        assert {state: count for state, count in told["page_counts"].items() if count} == {"failed": 1}
        assert set(told["counts"]) == {
            "saved", "duplicate", "filtered", "blocked", "robots", "opted_out", "failed", "skipped", "review",
        }  # fmt: skip

    def test_an_album_only_those_who_may_see_it(self, staff, visitor):
        private, public = AlbumFactory(), AlbumFactory(public=True)
        hidden, shown = ended(album=private), ended(album=public)

        assert staff.get(f"{JOBS}/{hidden.pk}").json()["album"] == str(private.pk)
        for client in (APIClient(), visitor):
            assert client.get(f"{JOBS}/{hidden.pk}").json()["album"] is None
            assert client.get(f"{JOBS}/{shown.pk}").json()["album"] == str(public.pk)

    def test_nobody_but_staff_whether_a_name_leads_nowhere_or_into_a_private_network(self):
        same = {"host": "maybe.example.net", "name": "maybe", "progress": 99}
        private = ended(error_code="blocked_address", error_detail="It leads into a private network.", **same)
        missing = ended(error_code="no_images_found", error_detail="No picture was found.", **same)
        ScrapedPageFactory(job=private, state="blocked")
        ScrapedPageFactory(job=missing, state="failed", reason="unresolved")

        one, other = (APIClient().get(f"{JOBS}/{job.pk}").json() for job in (private, missing))

        differs = {name for name in one if one[name] != other[name]}
        assert differs <= {"id", "created_at", "started_at", "finished_at", "duration_seconds"}

    @pytest.mark.parametrize(
        "path", ["items", "pages", "hosts", "logs", "events", "cancel", "retry", "review"]
    )
    def test_all_else_is_for_staff(self, visitor, path):
        job = ended()
        method = "post" if path in {"cancel", "retry", "review"} else "get"

        for client, code in ((APIClient(), 401), (visitor, 403)):
            assert getattr(client, method)(f"{JOBS}/{job.pk}/{path}").status_code == code
        assert (APIClient().post(START, {}).status_code, visitor.post(START, {}).status_code) == (401, 403)


class TestList:
    def test_costs_the_same_however_long_it_is(self, staff, django_assert_max_num_queries):
        def crawl():
            job = ended(album=AlbumFactory(public=True))
            ScrapedImageFactory(job=job)
            ScrapedPageFactory(job=job)

        crawl()
        staff.get(JOBS)
        for _ in range(4):
            crawl()
        with django_assert_max_num_queries(4):
            assert len(staff.get(JOBS).json()["results"]) == 5
        with django_assert_max_num_queries(2):
            APIClient().get(JOBS)

    def test_can_be_of_one_status(self, staff):
        ended(JobStatus.COMPLETED)
        failed = ended()

        answer = staff.get(f"{JOBS}?status=failed").json()

        assert [job["id"] for job in answer["results"]] == [str(failed.pk)]
        assert staff.get(f"{JOBS}?colour=red").status_code == 400

    def test_can_be_of_one_album_for_those_who_may_see_it(self, staff):
        private, public = AlbumFactory(), AlbumFactory(public=True)
        hidden, shown = ended(album=private), ended(album=public)

        def found(client, album):
            return [job["id"] for job in client.get(f"{JOBS}?album={album.pk}").json()["results"]]

        assert found(staff, private) == [str(hidden.pk)]
        assert found(APIClient(), public) == [str(shown.pk)]
        assert found(APIClient(), private) == []

    def test_reads_of_the_addresses_of_each_only_the_first(self, staff):
        pictures = [f"https://gallery.example/{number}.png" for number in range(3)]
        ended(config=plan(start_urls=[], image_urls=pictures, obey_robots=False))
        ended(config=plan(start_urls=["https://gallery.example/page"], image_urls=pictures, follow="host"))
        ended(config=plan(start_urls=[]))

        with CaptureQueriesContext(connection) as queries:
            listed = staff.get(JOBS).json()["results"]

        assert [job["source_url"] for job in listed] == ["", "https://gallery.example/page", pictures[0]]
        assert [(job["config"]["follow"], job["config"]["obey_robots"]) for job in listed] == [
            ("site", True), ("host", True), ("site", False),
        ]  # fmt: skip
        for job in listed:
            shown = staff.get(f"{JOBS}/{job['id']}").json()
            assert job["source_url"] == shown["source_url"]
            assert shown["config"] == job["config"] | {
                name: shown["config"][name] for name in ("start_urls", "image_urls")
            }
            assert not {"start_urls", "image_urls"} & set(job["config"])
        assert not any('"scraping_scrapejob"."config",' in query["sql"] for query in queries)


class TestLife:
    def test_a_waiting_one_ends_at_once(self, staff):
        job = ScrapeJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now())

        answer = staff.post(f"{JOBS}/{job.pk}/cancel")

        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        again = staff.post(f"{JOBS}/{job.pk}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "already_finished")

    def test_a_running_one_is_stopping(self, staff):
        job = running()

        answer = staff.post(f"{JOBS}/{job.pk}/cancel")

        assert (answer.status_code, answer.json()["status"]) == (202, "running")
        job.refresh_from_db()
        assert job.cancel_requested_at

    def test_one_that_has_ended_is_done_again_as_a_new_one(self, staff):
        before = ended(
            config=plan(obey_robots=False), album=AlbumFactory(), visibility="public", total_steps=100
        )

        answer = staff.post(f"{JOBS}/{before.pk}/retry")
        told = answer.json()

        assert answer.status_code == 201
        assert answer.headers["Location"] == f"{JOBS}/{told['id']}"
        assert answer.headers["RateLimit-Remaining"] == "9"
        assert told["id"] != str(before.pk)
        assert (told["status"], told["retry_of"]) == ("queued", str(before.pk))
        assert (told["config"], told["album"]) == (before.config, str(before.album_id))
        assert AuditEntry.objects.filter(action="scrapejob.override", target_id=told["id"]).exists()

    def test_one_that_goes_on_is_not(self, staff):
        answer = staff.post(f"{JOBS}/{running().pk}/retry")

        assert (answer.status_code, answer.json()["code"]) == (409, "not_finished")
        assert "RateLimit-Remaining" not in answer.headers

    def test_doing_it_again_counts_as_a_start(self, staff, set_config):
        set_config("rate_limits: {scrape_start: {limit: 1, window_seconds: 3600}}")
        staff.post(START, {"url": "https://gallery.example/"}, format="json")

        refused = staff.post(f"{JOBS}/{ended().pk}/retry")

        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert not ScrapeJob.objects.filter(retry_of__isnull=False).exists()

    def test_what_may_not_be_fetched_any_more_is_not_fetched_again(self, staff):
        answer = staff.post(f"{JOBS}/{ended(config=plan(start_urls=['http://10.0.0.5/'])).pk}/retry")

        assert (answer.status_code, answer.json()["code"]) == (400, "blocked_address")


class TestReview:
    def test_decides_about_pictures_that_wait(self, staff):
        job = ended(JobStatus.COMPLETED, needs_review=True)
        good, bad = ScrapedImageFactory.create_batch(2, job=job, state="review")

        answer = staff.post(
            f"{JOBS}/{job.pk}/review", {"approve": [good.pk], "reject": [bad.pk]}, format="json"
        )

        assert answer.status_code == 200
        assert answer.json()["id"] == str(job.pk)
        bad.refresh_from_db()
        assert (bad.state, bad.reason) == ("filtered", "rejected")
        again = staff.post(f"{JOBS}/{job.pk}/review", {"reject": [bad.pk]}, format="json")
        assert (again.status_code, again.json()["code"]) == (409, "nothing_to_review")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/approve"),
            ({"approve": [], "reject": []}, "/approve"),
            ({"approve": "1"}, "/approve"),
            ({"approve": ["1"]}, "/approve/0"),
            ({"approve": [True]}, "/approve/0"),
            ({"approve": [10**30]}, "/approve/0"),
            ({"reject": [999_999]}, "/reject/0"),
            ({"reject": [1], "all": True}, "/all"),
        ],
    )
    def test_points_at_what_is_wrong(self, staff, body, pointer):
        job = ended(JobStatus.COMPLETED, needs_review=True)

        answer = staff.post(f"{JOBS}/{job.pk}/review", body, format="json")

        assert answer.status_code == 400
        assert {error["pointer"] for error in answer.json()["errors"]} == {pointer}

    def test_knows_only_pictures_of_this_crawl(self, staff):
        job, foreign = ended(JobStatus.COMPLETED), ScrapedImageFactory(state="review")

        answer = staff.post(f"{JOBS}/{job.pk}/review", {"approve": [foreign.pk]}, format="json")

        assert [error["pointer"] for error in answer.json()["errors"]] == ["/approve/0"]
