"""Starting crawls over the API: what is asked for how, what is refused, and what is written down of it."""

import pytest
from rest_framework.test import APIClient

from albums.tests.factories import AlbumFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from scraping.crawler.addresses import LONGEST
from scraping.models import ScrapeJob

pytestmark = pytest.mark.django_db

START = "/api/scraping/start"


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


def start(client, **fields):
    return client.post(START, {"url": "https://gallery.example/"} | fields, format="json")


def pointers(answer):
    assert answer.status_code == 400, answer.content
    return {error["pointer"]: error["code"] for error in answer.json()["errors"]}


class TestStart:
    def test_queues_a_crawl_and_says_where_it_is(self, staff):
        answer = start(staff)
        told = answer.json()
        job = ScrapeJob.objects.get()

        assert answer.status_code == 201
        assert answer.headers["Location"] == f"/api/scraping/jobs/{job.pk}"
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

    def test_an_address_is_as_long_as_the_crawler_takes_at_most(self, staff):
        url = "https://gallery.example/".ljust(LONGEST, "x")
        in_list = staff.post(START, {"urls": [url, f"{url}x"]}, format="json")

        assert pointers(start(staff, url=f"{url}x")) == {"/url": "blocked_address"}
        assert pointers(in_list) == {"/urls/1": "blocked_address"}
        assert pointers(start(staff, url=f"https://gallery.example/{'ä' * 500}")) == {
            "/url": "blocked_address"
        }
        assert start(staff, url=url).status_code == 201

    def test_a_host_with_a_very_long_name_is_one_too(self, staff):
        host = f"{'.'.join(['x' * 60] * 3)}.{'x' * 40}.example"

        told = start(staff, url=f"https://{host}/").json()

        assert (told["host"], told["name"], told["album_name"]) == (host, host[:200], host[:200])

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
