"""Crawls over the API: who is told what, and what is asked for how."""

import json

import pytest
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


def start(client, **fields):
    return client.post(START, {"url": "https://gallery.example/"} | fields, format="json")


def pointers(answer):
    assert answer.status_code == 400, answer.content
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


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

    @pytest.mark.parametrize(
        "host", ["10.0.0.5", "wiki", "wiki.corp.internal", "::1", "opened.example.net", "203.0.113.9"]
    )
    def test_nobody_but_staff_the_name_of_a_host_that_the_operator_has_opened(self, staff, settings, host):
        settings.SCRAPING_ALLOW_PRIVATE = ["10.0.0.0/8", "opened.example.net:8080", "203.0.113.9", "wiki"]
        job = ended(host=host, config=plan())

        assert staff.get(f"{JOBS}/{job.pk}").json()["host"] == host
        assert APIClient().get(f"{JOBS}/{job.pk}").json()["host"] == ""

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

    def test_shows_the_first_addresses_of_each_and_one_crawl_all_of_them(self, staff):
        urls = [f"https://gallery.example/{number}.png" for number in range(150)]
        job = ended(config=plan(start_urls=[], image_urls=urls))

        [listed] = staff.get(JOBS).json()["results"]

        assert listed["config"]["image_urls"] == urls[:100]
        assert listed["source_url"] == urls[0]
        assert staff.get(f"{JOBS}/{job.pk}").json()["config"]["image_urls"] == urls


class TestStart:
    def test_queues_a_crawl_and_says_where_it_is(self, staff):
        answer = start(staff)
        told = answer.json()
        job = ScrapeJob.objects.get()

        assert answer.status_code == 201
        assert answer.headers["Location"] == f"{JOBS}/{job.pk}"
        assert answer.headers["RateLimit-Remaining"] == "9"
        assert (told["status"], told["name"], told["host"]) == (
            "queued",
            "gallery.example",
            "gallery.example",
        )
        assert (told["total_steps"], told["visibility"], told["needs_review"]) == (1000, "private", False)
        assert told["config"] == {
            "start_urls": ["https://gallery.example/"], "image_urls": [], "depth": 3, "follow": "site", "max_pages": 1000,
            "max_images": 1000, "min_side": 128, "obey_robots": True, "obey_opt_outs": True,
        }  # fmt: skip

    def test_takes_everything_that_can_be_said_of_it(self, staff):
        album = AlbumFactory()

        told = start(
            staff, name="Cards", description="All of them", depth=2, max_images=7, max_pages=5, follow="host", min_side=32,
            album=str(album.pk), visibility="public", review=True,
        ).json()  # fmt: skip

        assert (told["name"], told["description"], told["album"]) == ("Cards", "All of them", str(album.pk))
        assert (told["total_steps"], told["visibility"], told["needs_review"]) == (7, "public", True)
        wanted = {"depth": 2, "max_images": 7, "max_pages": 5, "follow": "host", "min_side": 32}
        assert wanted.items() <= told["config"].items()

    def test_a_list_is_pages_and_pictures_without_links(self, staff):
        urls = ["https://gallery.example/a", "https://other.example/1.PNG", "https://gallery.example/a"]

        told = staff.post(START, {"urls": urls, "album_name": "Both"}, format="json").json()

        assert told["config"]["start_urls"] == urls[:1]
        assert told["config"]["image_urls"] == urls[1:2]
        assert (told["config"]["depth"], told["config"]["follow"]) == (1, "nowhere")
        assert told["album_name"] == "Both"

    def test_not_following_links_is_the_same_as_a_depth_of_1(self, staff):
        first, second = start(staff, follow_links=False).json(), start(staff, depth=1).json()

        assert first["config"] == second["config"]
        assert (first["config"]["depth"], first["config"]["follow"]) == (1, "nowhere")
        assert first["config"]["max_pages"] == 1

    def test_asks_for_no_more_pictures_than_are_allowed_where_nobody_says_how_many(self, staff, set_config):
        set_config("scraping: {max_images: 50}")

        assert start(staff).json()["config"]["max_images"] == 50
        assert pointers(start(staff, max_images=51)) == {"/max_images": "invalid"}

    def test_a_host_that_is_nobodys_business_gives_no_crawl_its_name(self, staff, settings):
        settings.SCRAPING_ALLOW_PRIVATE = ["10.0.0.0/8"]

        told = start(staff, url="http://10.0.0.5/").json()

        assert (told["name"], told["host"], told["album_name"]) == ("Crawl", "10.0.0.5", "Crawl")

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/", "http://localhost/",
            "http://2130706433/", "http://0x7f.1/", "http://10.0.0.5:8080/", "http://gallery.example:22/", "file:///etc/passwd",
            "ftp://gallery.example/", "http://user:pass@gallery.example/", "http://gallery.example\\@10.0.0.1/",
            "gallery.example", "javascript:alert(1)", "http://testserver/", "http://wiki.corp.internal/",
        ],
    )  # fmt: skip
    def test_what_leads_nowhere_good_is_pointed_at(self, staff, url):
        answer = start(staff, url=url)
        in_list = staff.post(START, {"urls": ["https://gallery.example/", url]}, format="json")

        assert answer.json()["code"] == "blocked_address"
        assert pointers(answer) == {"/url": "blocked_address"}
        assert pointers(in_list) == {"/urls/1": "blocked_address"}
        assert not ScrapeJob.objects.exists()

    @pytest.mark.parametrize(
        ("change", "pointer", "code"),
        [
            ({"url": 5}, "/url", "invalid"),
            ({"url": ["https://gallery.example/"]}, "/url", "invalid"),
            ({"url": None}, "/url", "null"),
            ({"url": ""}, "/url", "blank"),
            ({"urls": ["https://gallery.example/"]}, "/url", "required"),
            ({"urls": []}, "/urls", "min_length"),
            ({"urls": "https://gallery.example/"}, "/urls", "not_a_list"),
            ({"urls": [5]}, "/urls/0", "invalid"),
            ({"depth": True}, "/depth", "invalid"),
            ({"depth": "3"}, "/depth", "invalid"),
            ({"depth": 2.0}, "/depth", "invalid"),
            ({"depth": 0}, "/depth", "min_value"),
            ({"depth": 11}, "/depth", "max_value"),
            ({"max_images": 0}, "/max_images", "min_value"),
            ({"max_images": 10_001}, "/max_images", "max_value"),
            ({"max_images": False}, "/max_images", "invalid"),
            ({"max_pages": 1001}, "/max_pages", "invalid"),
            ({"min_side": -1}, "/min_side", "min_value"),
            ({"follow_links": 1}, "/follow_links", "invalid"),
            ({"follow_links": "no"}, "/follow_links", "invalid"),
            ({"follow": "nowhere"}, "/follow", "invalid_choice"),
            ({"visibility": "secret"}, "/visibility", "invalid_choice"),
            ({"obey_robots": None}, "/obey_robots", "null"),
            ({"obey_opt_outs": 0}, "/obey_opt_outs", "invalid"),
            ({"review": "true"}, "/review", "invalid"),
            ({"name": ""}, "/name", "blank"),
            ({"name": "x" * 201}, "/name", "max_length"),
            ({"description": 5}, "/description", "invalid"),
            ({"album": "01a212ab-e42f-7749-9fe9-e2062007175c"}, "/album", "does_not_exist"),
            ({"album": True}, "/album", "incorrect_type"),
            ({"user_agent": "Mozilla"}, "/user_agent", "unknown_field"),
            ({"allow_private": ["10.0.0.0/8"]}, "/allow_private", "unknown_field"),
            ({"needs_review": True}, "/needs_review", "unknown_field"),
        ],
    )
    def test_what_is_wrong_is_pointed_at(self, staff, change, pointer, code):
        assert pointers(start(staff, **change)) == {pointer: code}

    def test_an_album_and_the_name_of_a_new_one_contradict_each_other(self, staff):
        answer = start(staff, album=str(AlbumFactory().pk), album_name="New")

        assert pointers(answer) == {"/album_name": "invalid"}

    @pytest.mark.parametrize("body", [{}, {"name": "x"}])
    def test_without_an_address_there_is_nothing_to_begin_with(self, staff, body):
        assert pointers(staff.post(START, body, format="json")) == {"/url": "required"}

    def test_a_list_has_so_many_pages_at_most(self, staff):
        urls = [f"https://gallery.example/{number}" for number in range(1001)]

        assert pointers(staff.post(START, {"urls": urls}, format="json")) == {"/urls": "invalid"}
        assert staff.post(START, {"urls": urls[:-1]}, format="json").status_code == 201

    def test_is_counted_only_when_it_is_accepted(self, staff, set_config):
        set_config("rate_limits: {scrape_start: {limit: 1, window_seconds: 3600}}")
        start(staff, url="http://127.0.0.1/")
        accepted = start(staff)

        refused = start(staff)

        assert (accepted.status_code, accepted.headers["RateLimit-Remaining"]) == (201, "0")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) >= 1
        assert ScrapeJob.objects.count() == 1
        assert AuditEntry.objects.filter(action="scrapejob.create").count() == 1
        assert start(staff, url="http://127.0.0.1/").status_code == 400, "what is wrong goes before the rate"

    def test_who_goes_against_the_wishes_of_sites_is_recorded(self, staff):
        urls = [f"https://gallery.example/pictures/{number}.png" for number in range(50)]

        job = staff.post(START, {"urls": urls, "obey_robots": False}, format="json").json()

        entry = AuditEntry.objects.get(action="scrapejob.override")
        assert (entry.target_id, entry.actor_name) == (job["id"], job["owner"])
        assert entry.after == {"obey_robots": False}

    def test_who_does_not_is_recorded_as_having_started_it(self, staff):
        job = start(staff).json()

        actions = AuditEntry.objects.filter(target_id=job["id"]).values_list("action", flat=True)
        assert list(actions) == ["scrapejob.create"]


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
        start(staff)

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

        assert set(pointers(answer)) == {pointer}

    def test_knows_only_pictures_of_this_crawl(self, staff):
        job, foreign = ended(JobStatus.COMPLETED), ScrapedImageFactory(state="review")

        answer = staff.post(f"{JOBS}/{job.pk}/review", {"approve": [foreign.pk]}, format="json")

        assert set(pointers(answer)) == {"/approve/0"}
