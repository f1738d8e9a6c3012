"""What crawls have met, over the API: pictures, pages, hosts, logs, events and figures."""

import time
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone
from rest_framework.test import APIClient

from albums.tests.factories import ImageFactory
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from imagehub.jobs.registry import get_kind
from imagehub.jobs.runner import run_next
from scraping.models import HostRecord, ScrapeJob, domain_key
from scraping.services.figures import STAGING_KEY
from scraping.services.folders import folder_of, log_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory
from scraping.tests.sites import drawing

pytestmark = pytest.mark.django_db

JOBS = "/api/scraping/jobs"


@pytest.fixture
def staff():
    client = APIClient()
    client.force_authenticate(UserFactory(staff=True))
    return client


@pytest.fixture
def job():
    return ScrapeJobFactory()


def told(client, job, what):
    answer = client.get(f"{JOBS}/{job.pk}/{what}")
    assert answer.status_code == 200, answer.content
    return answer.json()


class TestItems:
    def test_tell_where_a_picture_is_from_and_what_became_of_it(self, staff, job):
        image, twin = ImageFactory(), ImageFactory()
        item = ScrapedImageFactory(
            job=job, url="https://gallery.example/a.png?x=1", redirects=["https://gallery.example/a.png?x=1"],
            final_url="https://gallery.example/b.png", image=image, resembles=twin, reason="", opt_out="noai", origin="img",
            licence="https://creativecommons.org/licenses/by/4.0/", captions=[{"text": "An ace", "origin": "alt"}],
            duplicate_of="0" * 64, attempts=2,
        )  # fmt: skip

        [row] = told(staff, job, "items")["results"]

        assert row == {
            "id": item.pk, "position": item.position, "url": item.url, "page_url": "https://gallery.example/",
            "final_url": "https://gallery.example/b.png", "redirects": [item.url], "state": "saved", "reason": "",
            "status": 200, "robots": "allowed", "opt_out": "noai", "licence": item.licence, "origin": "img",
            "captions": [{"text": "An ace", "origin": "alt"}], "sha256": item.sha256, "width": 240, "height": 180,
            "size_bytes": 1000, "format": "png", "attempts": 2, "fetched_at": "2026-11-01T00:00:00Z",
            "image": str(image.pk), "resembles": str(twin.pk), "duplicate_of": "0" * 64,
        }  # fmt: skip

    def test_come_in_order_and_page_by_page(self, staff, job, django_assert_max_num_queries):
        ScrapedImageFactory.create_batch(5, job=job)
        ScrapedImageFactory()

        with django_assert_max_num_queries(2):
            page = told(staff, job, "items?limit=3")
        rest = staff.get(page["next"]).json()

        positions = [row["position"] for row in page["results"] + rest["results"]]
        assert positions == sorted(positions)
        assert (len(positions), rest["next"]) == (5, None)

    def test_can_be_of_one_state_or_reason_or_look_like_others(self, staff, job):
        plain = ScrapedImageFactory(job=job)
        small = ScrapedImageFactory(job=job, state="filtered", reason="too_small")
        twins = {"job": job, "image": ImageFactory(), "resembles": ImageFactory()}
        unsettled = ScrapedImageFactory(**twins)
        settled = ScrapedImageFactory(**twins, is_settled=True)
        gone = ScrapedImageFactory(**twins | {"resembles": ImageFactory(deleted_at=timezone.now())})

        def found(query):
            return {row["id"] for row in told(staff, job, f"items?{query}")["results"]}

        assert found("state=filtered") == found("reason=too_small") == {small.pk}
        assert found("near_duplicates=true") == {unsettled.pk}
        assert found("near_duplicates=false&state=saved") == {plain.pk, settled.pk, gone.pk}

    @pytest.mark.parametrize("query", ["state=lost", "near_duplicates=maybe", "colour=red", "limit=0"])
    def test_refuse_what_makes_no_sense(self, staff, job, query):
        assert staff.get(f"{JOBS}/{job.pk}/items?{query}").status_code == 400


def test_pages_tell_what_was_read(staff, job):
    page = ScrapedPageFactory(job=job, depth=2, images_found=7, links_found=9)
    ScrapedPageFactory(job=job, state="robots", reason="disallowed", robots="disallowed", status=None)
    ScrapedPageFactory()

    [row] = told(staff, job, "pages?state=visited")["results"]

    assert row == {
        "id": page.pk, "url": page.url, "page_url": "", "final_url": page.url, "redirects": [], "depth": 2,
        "state": "visited", "reason": "", "status": 200, "robots": "allowed", "opt_out": "", "images_found": 7,
        "links_found": 9, "attempts": 1, "fetched_at": "2026-11-01T00:00:00Z",
    }  # fmt: skip
    assert len(told(staff, job, "pages")["results"]) == 2
    assert len(told(staff, job, "pages?reason=disallowed")["results"]) == 1


class TestHosts:
    def test_tell_how_each_was_met(self, staff, job, django_assert_max_num_queries):
        ScrapedPageFactory(job=job)
        ScrapedPageFactory(job=job, state="failed", reason="http_503")
        ScrapedImageFactory.create_batch(2, job=job)
        ScrapedImageFactory(job=job, state="failed", reason="timeout", robots="")
        ScrapedImageFactory(job=job, state="robots", reason="disallowed", robots="disallowed")
        ScrapedImageFactory(job=job, domain=domain_key("cdn.gallery.example"))
        ScrapedImageFactory(job=job, domain=domain_key("127.0.0.1"), state="blocked", robots="")
        ScrapedImageFactory()
        HostRecord.objects.create(
            host="gallery.example",
            state={
                "requests": 9,
                "errors": 2,
                "latency": 0.25,
                "interval": 4.0,
                "failures": 1,
                "closed_until": 1.0,
            },
        )

        with django_assert_max_num_queries(4):
            answer = told(staff, job, "hosts")

        assert answer["is_truncated"] is False
        assert [host["host"] for host in answer["results"]] == [
            "gallery.example",
            "127.0.0.1",
            "cdn.gallery.example",
        ]
        assert answer["results"][0] == {
            "host": "gallery.example",
            "pages": {"visited": 1, "failed": 1},
            "images": {"saved": 2, "failed": 1, "robots": 1},
            "errors": 2,
            "robots": {"allowed": 4, "disallowed": 1},
            "standing": {
                "interval_seconds": 4.0, "closed_until": None, "breaker_open": False, "requests": 9, "errors": 2,
                "latency_seconds": 0.25,
            },
        }  # fmt: skip
        assert answer["results"][1]["standing"] is None

    @pytest.mark.parametrize(("failures", "is_open"), [(1, False), (5, True)])
    def test_tell_until_when_one_is_left_alone(self, staff, job, failures, is_open):
        ScrapedPageFactory(job=job)
        until = time.time() + 60
        HostRecord.objects.create(host="gallery.example", state={"failures": failures, "closed_until": until})

        [host] = told(staff, job, "hosts")["results"]

        assert host["standing"]["breaker_open"] is is_open
        assert host["standing"]["closed_until"] > timezone.now().isoformat()[:19]

    def test_are_the_greatest_where_there_are_too_many(self, staff, job):
        for number in range(201):
            ScrapedPageFactory(job=job, domain=domain_key(f"host-{number:03}.example"))
        ScrapedImageFactory(job=job, domain=domain_key("host-200.example"))

        answer = told(staff, job, "hosts")

        assert (answer["is_truncated"], len(answer["results"])) == (True, 200)
        assert answer["results"][0]["host"] == "host-200.example"


class TestLogs:
    def test_tell_the_last_lines(self, staff, job):
        log = log_of(job)
        log.parent.mkdir(parents=True)
        log.with_name("run.log.1").write_text(f"--- job {job.pk} of request -\nfirst\nsecond\n")
        log.write_text("third\nfourth\n")

        answer = told(staff, job, "logs?tail=3")

        assert answer == {"lines": ["second", "third", "fourth"], "log_path": str(log)}

    def test_are_empty_before_it_has_run(self, staff, job):
        assert told(staff, job, "logs")["lines"] == []

    @pytest.mark.parametrize("query", ["tail=0", "tail=5001", "tail=x", "colour=red"])
    def test_refuse_what_makes_no_sense(self, staff, job, query):
        assert staff.get(f"{JOBS}/{job.pk}/logs?{query}").status_code == 400


def test_events_are_streamed(staff):
    now = timezone.now()
    job = ScrapeJobFactory(status=JobStatus.FAILED, started_at=now, finished_at=now)

    answer = staff.get(f"{JOBS}/{job.pk}/events", headers={"Accept": "text/event-stream"})

    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert b'"status":"failed"' in answer.content


@pytest.mark.parametrize("what", ["items", "pages", "hosts", "logs", "events"])
def test_a_crawl_that_is_not_there_has_nothing(staff, what):
    assert staff.get(f"{JOBS}/01a212ab-e42f-7749-9fe9-e2062007175c/{what}").status_code == 404


class TestStats:
    @pytest.fixture(autouse=True)
    def _crawls(self):
        cache.delete(STAGING_KEY)
        now = timezone.now()
        ended = {"status": JobStatus.COMPLETED, "started_at": now, "finished_at": now}
        job = ScrapeJobFactory(images_saved=3, **ended)
        ScrapeJobFactory(images_saved=4, created_at=now - timedelta(days=8), **ended)
        ScrapeJobFactory(status=JobStatus.QUEUED, queued_at=now)
        folder = folder_of(job)
        folder.pictures.mkdir(parents=True)
        (folder.pictures / "a.png").write_bytes(b"x" * 100)
        (folder.pictures / "link").symlink_to(folder.pictures / "a.png")
        HostRecord.objects.create(host="a.example", state={"failures": 5, "closed_until": time.time() + 60})
        HostRecord.objects.create(host="b.example", state={"failures": 5, "closed_until": time.time() - 60})
        HostRecord.objects.create(host="c.example", state={"failures": 4, "closed_until": time.time() + 60})
        HostRecord.objects.create(host="d.example", state={})

    PUBLIC = {
        "total_jobs": 3, "pending_jobs": 0, "queued_jobs": 1, "running_jobs": 0, "completed_jobs": 2, "failed_jobs": 0,
        "cancelled_jobs": 0, "recent_jobs": 2, "images_saved": 7,
    }  # fmt: skip

    def test_tell_everybody_how_many_crawls_stand_where(self):
        assert APIClient().get("/api/scraping/stats").json() == self.PUBLIC

    def test_tell_staff_also_what_is_kept_here_and_of_hosts(self, staff):
        answer = staff.get("/api/scraping/stats").json()

        assert answer == self.PUBLIC | {"staging_bytes": 100, "known_hosts": 4, "open_breakers": 1}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_a_crawl_from_the_request_to_what_came_of_it(staff, site, other_site):
    site.show("/robots.txt", "User-agent: *\nDisallow: /private/\n", "text/plain")
    site.show(
        "/", f'<img src=/0.png alt="An ace"><img src=/private/1.png><img src={other_site.url("/2.png")}>'
    )
    site.show("/0.png", drawing(0))

    started = staff.post("/api/scraping/start", {"url": site.url(), "depth": 1, "visibility": "public"})
    job = ScrapeJob.objects.get(pk=started.json()["id"])
    assert run_next(get_kind("scraping"))

    one = staff.get(started.headers["Location"]).json()
    assert (one["status"], one["images_found"], one["images_saved"], one["pages"]) == ("completed", 3, 1, 1)
    assert (one["counts"]["saved"], one["counts"]["robots"], one["counts"]["failed"]) == (1, 1, 1)
    seen = APIClient().get(started.headers["Location"]).json()
    assert (seen["album"], seen["host"]) == (one["album"], "127.0.0.1")
    items = {row["url"]: row for row in told(staff, job, "items")["results"]}
    saved, forbidden = items[site.url("/0.png")], items[site.url("/private/1.png")]
    assert (saved["state"], saved["captions"][0]) == ("saved", {"text": "An ace", "origin": "alt"})
    assert APIClient().get(f"/api/images/{saved['image']}").json()["visibility"] == "public"
    assert (forbidden["state"], forbidden["robots"], forbidden["image"]) == ("robots", "disallowed", None)
    assert items[other_site.url("/2.png")]["reason"] == "http_404"
    hosts = {host["host"]: host for host in told(staff, job, "hosts")["results"]}
    assert hosts["127.0.0.1"]["robots"] == {"allowed": 2, "disallowed": 1}
    assert (hosts["127.0.0.2"]["errors"], hosts["127.0.0.2"]["images"]) == (1, {"failed": 1})
    assert hosts["127.0.0.1"]["standing"]["requests"] == len(site.paths())
    assert told(staff, job, "logs")["lines"][0].startswith(f"--- job {job.pk}")
