"""Crawls in the admin: what it shows of them, and what can be done there."""

import re
from dataclasses import asdict

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.accounts.tests.factories import UserFactory
from imagehub.jobs.models import JobStatus
from scraping.models import HostRecord, ScrapeJob, SiteFile
from scraping.politeness.hosts import HostState
from scraping.services.folders import folder_of, log_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory, ScrapeJobFactory
from scraping.tests.reviews import end, reviewed_crawl

pytestmark = pytest.mark.django_db

LIST = "/admin/scraping/scrapejob/"
START = f"{LIST}add/"
FORM = {
    "url": "https://gallery.example/", "urls": "", "follow_links": "on", "follow": "site", "depth": "2", "max_pages": "30",
    "max_images": "40", "min_side": "64", "album_name": "Cards", "visibility": "public", "obey_robots": "on",
    "obey_opt_outs": "on", "name": "", "description": "All of them",
}  # fmt: skip


@pytest.fixture
def admin():
    client = Client()
    client.force_login(UserFactory(staff=True, username="ann"))
    return client


def page_of(job):
    return reverse("admin:scraping_scrapejob_change", args=[job.pk])


def said(response):
    return " ".join(str(message) for message in response.context["messages"])


def choose(client, action, *chosen, where=LIST):
    body = {"action": action, "_selected_action": [str(row.pk) for row in chosen]}
    return said(client.post(where, body, follow=True))


def press(client, job, act):
    return client.post(reverse("admin:scraping_scrapejob_act", args=[job.pk]), {"act": act}, follow=True)


def queued(**fields) -> ScrapeJob:
    job = ScrapeJobFactory(**fields)
    ScrapeJob.objects.filter(pk=job.pk).enqueue()
    job.refresh_from_db()
    return job


def errors(response) -> dict[str, list[str]]:
    return {name: list(texts) for name, texts in response.context["form"].errors.items()}


class TestList:
    def test_shows_how_crawls_go_by_few_queries(self, admin, django_assert_max_num_queries):
        failed = ScrapeJobFactory(name="Cards", host="cards.example")
        ScrapeJob.objects.filter(pk=failed.pk).update(
            status="failed", finished_at="2026-01-02T03:04:05Z", error_code="x", error_detail="It failed.",
            images_found=1200, images_saved=7,
        )  # fmt: skip
        for _ in range(5):
            queued(owner=UserFactory(staff=True))

        with django_assert_max_num_queries(16):
            html = admin.get(LIST).content.decode()

        assert "cards.example" in html
        assert "7 of 1,200 pictures" in html
        assert "It failed." in html
        assert "Start a crawl" in html
        assert "delete_selected" not in html

    def test_does_not_read_what_crawls_were_asked_to_do(self, admin):
        job = ScrapeJobFactory(retry_of=ScrapeJobFactory())
        ScrapedImageFactory(job=job)
        ScrapedPageFactory(job=job)
        found = [reverse(f"admin:scraping_{name}_changelist") for name in ("scrapedimage", "scrapedpage")]

        with CaptureQueriesContext(connection) as queries:
            for where in (LIST, *found, f"{found[0]}?job={job.pk}"):
                assert admin.get(where).status_code == 200
        assert not any('"config"' in query["sql"] for query in queries)

    @pytest.mark.parametrize(
        "asked",
        [
            "scrapejob/?status__exact=%00", "scrapedimage/?state=%00", "scrapedimage/?reason=%00", "scrapedpage/?state=%00",
            "scrapedpage/?reason=a%00", "hostrecord/?state=%00", "hostrecord/?standing=%00", "sitefile/?path=%00",
        ],
    )  # fmt: skip
    def test_is_whole_where_somebody_asks_for_what_cannot_be(self, admin, asked):
        ScrapedImageFactory(reason="a")
        HostRecord.objects.create(host="a.example")
        SiteFile.objects.create(origin="https://a.example", path="/robots.txt")

        response = admin.get(f"/admin/scraping/{asked}", follow=True)

        assert response.status_code == 200
        assert response.redirect_chain == [(f"/admin/scraping/{asked.partition('?')[0]}?e=1", 302)]

    def test_finds_what_there_is_to_do(self, admin):
        reviewed_crawl(1, name="waits")
        decided = reviewed_crawl(1, name="decided")
        decided.items.update(reason="approved")

        html = admin.get(f"{LIST}?to_do=review").content.decode()
        rows = re.search(r'<table id="result_list">.*?</table>', html, re.S)[0]

        assert ">waits<" in rows
        assert ">decided<" not in rows
        pair = {"image": ImageFactory(), "resembles": ImageFactory()}
        ScrapedImageFactory(job=ScrapeJobFactory(name="similar"), **pair)
        ScrapedImageFactory(job=ScrapeJobFactory(name="settled"), is_settled=True, **pair)
        found = admin.get(f"{LIST}?to_do=lookalikes").context["cl"].result_list
        assert [job.name for job in found] == ["similar"]

    def test_cancels_and_repeats_what_can_be(self, admin):
        waiting, over = queued(name="waiting"), ScrapeJobFactory(name="over")
        end(over)

        text = choose(admin, "cancel", waiting, over)
        assert "“waiting” is cancelled" in text
        assert "over: The crawl is completed already." in text
        waiting.refresh_from_db()
        assert waiting.status == JobStatus.CANCELLED

        busy = queued(name="busy")
        text = choose(admin, "again", over, busy)
        assert "“over” is queued once more" in text
        assert "busy: The crawl is queued." in text
        again = ScrapeJob.objects.get(retry_of=over)
        assert (again.owner.username, again.status) == ("ann", "queued")


class TestStart:
    def test_starts_a_crawl_with_all_that_was_chosen(self, admin):
        response = admin.post(START, FORM, follow=True)

        job = ScrapeJob.objects.get()
        assert "is queued" in said(response)
        assert response.redirect_chain[-1][0] == page_of(job)
        assert (job.status, job.owner.username, job.name) == ("queued", "ann", "gallery.example")
        assert (job.album_name, job.visibility, job.description) == ("Cards", "public", "All of them")
        config = {
            name: job.config[name] for name in ("depth", "max_pages", "max_images", "min_side", "follow")
        }
        assert config == {"depth": 2, "max_pages": 30, "max_images": 40, "min_side": 64, "follow": "site"}
        assert (job.config["obey_robots"], job.needs_review) == (True, False)
        assert not AuditEntry.objects.filter(action="scrapejob.override").exists()

    def test_takes_a_list_of_addresses_and_an_album(self, admin):
        album = AlbumFactory(name="There")
        urls = "https://a.example/1.png\r\n\r\n https://b.example/page \r\n"

        admin.post(START, FORM | {"url": "", "urls": urls, "album": album.pk, "album_name": ""})

        job = ScrapeJob.objects.get()
        assert job.album == album
        assert job.config["image_urls"] == ["https://a.example/1.png"]
        assert job.config["start_urls"] == ["https://b.example/page"]

    def test_notes_who_disregards_what_sites_ask_for(self, admin):
        fields = {name: value for name, value in FORM.items() if not name.startswith("obey")}
        many = "\n".join(f"https://gallery.example/{'long' * 10}/{number}" for number in range(100))

        admin.post(START, fields | {"url": "", "urls": many})

        entry = AuditEntry.objects.get(action="scrapejob.override")
        assert entry.after == {"obey_robots": False, "obey_opt_outs": False}
        assert (entry.actor_name, entry.via) == ("ann", "admin")
        assert entry.target_id == str(ScrapeJob.objects.get().pk)
        assert (
            "Disregarded: robots.txt and opt-outs"
            in admin.get(page_of(ScrapeJob.objects.get())).content.decode()
        )

    @pytest.mark.parametrize(
        ("changes", "field", "text"),
        [
            ({"url": "http://127.0.0.1/"}, "url", "not"),
            (
                {"url": "", "urls": "https://a.example/\nftp://b.example/"},
                "urls",
                "ftp://b.example/: Only addresses",
            ),
            ({"url": ""}, "url", "Either one address or a list"),
            ({"urls": "https://b.example/"}, "urls", "not both"),
            ({"max_images": "20000"}, "max_images", "at most 10000"),
            ({"max_pages": "2000"}, "max_pages", "at most 1000"),
            ({"url": "", "urls": "https://a.example/1.png\n" * 10_001}, "urls", "at most 10000"),
            ({"url": f"https://a.example/{'x' * 2048}"}, "url", "at most 2048"),
            ({"depth": "11"}, "depth", "10"),
            ({"album": "album"}, "album_name", "one album"),
        ],
    )
    def test_tells_what_is_wrong_beside_the_field(self, admin, changes, field, text):
        if "album" in changes:
            changes = {"album": AlbumFactory().pk}

        response = admin.post(START, FORM | changes)

        assert list(errors(response)) == [field]
        assert text in errors(response)[field][0]
        assert not ScrapeJob.objects.exists()
        assert 'value="Cards"' in response.content.decode()  # what else was typed is still there

    def test_counts_what_it_starts(self, admin, set_config):
        set_config("rate_limits: {scrape_start: {limit: 1, window_seconds: 3600}}\n")
        admin.post(START, FORM | {"url": "http://127.0.0.1/"})  # refused, and not counted
        admin.post(START, FORM)

        response = admin.post(START, FORM)

        assert "Try again in" in errors(response)["__all__"][0]
        job = ScrapeJob.objects.get()
        end(job)
        assert "Try again in" in said(press(admin, job, "again"))
        assert ScrapeJob.objects.count() == 1


class TestPage:
    def test_shows_all_of_a_crawl(self, admin, django_assert_max_num_queries):
        job = reviewed_crawl(2, name="Cards", host="gallery.example")
        for number in range(30):
            ScrapedPageFactory(job=job, domain=f"com.example{number}")
        ScrapedImageFactory(job=job, position=5, state="failed")
        HostRecord.objects.create(
            host="example3.com",
            state=asdict(HostState(interval=8, requests=40, errors=3, closed_until=4e9, failures=9)),
        )
        folder_of(job).root.mkdir(exist_ok=True)
        log_of(job).write_text(f"--- job {job.pk} of request -\nINFO Reading pages\n")

        with django_assert_max_num_queries(20):
            html = admin.get(page_of(job)).content.decode()

        assert "INFO Reading pages" in html
        assert "2 pictures to review" in html
        assert re.search(r"<dt>Waits for review</dt><dd><a href=\"[^\"]*state=review\">2</a>", html)
        assert "broken off until" in html
        assert "40, 3 failed" in html
        assert "https://gallery.example/" in html
        assert str(folder_of(job).root) in html
        assert 'value="again"' in html
        assert 'value="cancel"' not in html
        assert "style=" not in re.sub(r"<nav.*?</nav>", "", html, flags=re.S)

    def test_buttons_act_and_lead_on(self, admin):
        job = queued(name="Cards")

        assert "is cancelled" in said(press(admin, job, "cancel"))
        response = press(admin, job, "again")
        assert response.redirect_chain[-1][0] == page_of(ScrapeJob.objects.get(retry_of=job))
        assert "is cancelled already" not in said(response)
        assert "already" in said(press(admin, job, "cancel"))
        assert press(admin, job, "explode").status_code == 404
        assert admin.get(reverse("admin:scraping_scrapejob_act", args=[job.pk])).status_code == 405

    def test_nothing_is_changed_or_deleted_there(self, admin):
        job = queued(name="Cards")

        assert admin.post(page_of(job), {"name": "other"}).status_code == 403
        assert admin.post(f"{LIST}{job.pk}/delete/", {"post": "yes"}).status_code == 403
        assert ScrapeJob.objects.get().name == "Cards"

    def test_what_strangers_write_is_text(self, admin):
        attack = "javascript:alert(1)//<script>"
        job = reviewed_crawl(1)
        job.items.update(page_url=attack, captions=[{"text": "<script>alert(2)</script>", "origin": "alt"}])
        item = job.items.get()
        pages = (
            reverse("admin:scraping_scrapejob_review", args=[job.pk]),
            reverse("admin:scraping_scrapedimage_change", args=[item.pk]),
            reverse("admin:scraping_scrapedimage_changelist"),
        )
        for url in pages:
            html = admin.get(url).content.decode()
            assert "<script>alert" not in html
            assert 'href="javascript' not in html


class TestFound:
    def test_lists_what_one_crawl_has_found_by_state_and_reason(self, admin, django_assert_max_num_queries):
        job = ScrapeJobFactory()
        ScrapedImageFactory(url="https://other.example/other.png", state="failed", reason="gone")
        for number in range(12):
            ScrapedImageFactory(
                job=job, position=number, state="filtered", reason="too_small" if number else "damaged",
                url=f"https://gallery.example/{number}.png",
            )  # fmt: skip
        url = f"{reverse('admin:scraping_scrapedimage_changelist')}?job={job.pk}"

        with django_assert_max_num_queries(12):
            response = admin.get(f"{url}&state=filtered")
        assert [item.position for item in response.context["cl"].result_list] == list(range(12))
        rows = admin.get(f"{url}&reason=damaged").context["cl"].result_list
        assert [item.position for item in rows] == [0]
        assert "Too small" in response.content.decode()
        assert "Gone" not in response.content.decode()

    @pytest.mark.parametrize("term", ["gallery.example", "https://www.gallery.example/a.png?x=1"])
    def test_finds_by_host_and_address(self, admin, term):
        url = "https://www.gallery.example/a.png?x=1"
        ScrapedImageFactory(url=url, domain="example.gallery.www", page_domain="")
        ScrapedImageFactory(url="https://notgallery.example/", domain="example.notgallery", page_domain="")
        ScrapedPageFactory(url=url, domain="example.gallery.www")
        ScrapedPageFactory(url="https://notgallery.example/", domain="example.notgallery")

        for name in ("scrapedimage", "scrapedpage"):
            found = admin.get(reverse(f"admin:scraping_{name}_changelist"), {"q": term})
            assert [row.url for row in found.context["cl"].result_list] == [url]

    def test_shows_the_provenance_of_a_picture_and_of_a_page(self, admin):
        item = ScrapedImageFactory(
            redirects=["https://gallery.example/moved"], licence="https://licence.example/by",
            captions=[{"text": "A fox", "origin": "alt"}], opt_out="noai",
        )  # fmt: skip
        html = admin.get(reverse("admin:scraping_scrapedimage_change", args=[item.pk])).content.decode()
        for text in ("https://gallery.example/moved", "licence.example", "A fox", "noai", item.sha256):
            assert text in html
        page = ScrapedPageFactory(reason="disallowed", state="robots")
        html = admin.get(reverse("admin:scraping_scrapedpage_change", args=[page.pk])).content.decode()
        assert "Forbidden by robots.txt" in html


class TestHosts:
    def test_a_host_is_seen_and_forgiven(self, admin):
        where = reverse("admin:scraping_hostrecord_changelist")
        state = asdict(HostState(interval=8, closed_until=4e9, failures=9, requests=40))
        slow = HostRecord.objects.create(host="slow.example", state=state)
        HostRecord.objects.create(host="quick.example", state={})
        html = admin.get(f"{where}?standing=closed").content.decode()
        assert "broken off until" in html
        assert "quick.example" not in html

        assert "1 host is asked again" in choose(admin, "forget", slow, where=where)

        slow.refresh_from_db()
        assert (slow.state["closed_until"], slow.state["requests"]) == (0, 40)
        html = admin.get(reverse("admin:scraping_hostrecord_change", args=["slow.example"])).content.decode()
        assert "open" in html

    def test_what_a_site_allows_is_text(self, admin):
        file = SiteFile.objects.create(
            origin="https://a.example",
            path="/robots.txt",
            status=200,
            body=b"Disallow: /<script>",
            fetched_at=1e9,
        )
        assert "a.example" in admin.get(reverse("admin:scraping_sitefile_changelist")).content.decode()
        html = admin.get(reverse("admin:scraping_sitefile_change", args=[file.pk])).content.decode()
        assert "Disallow: /&lt;script&gt;" in html


def test_the_page_of_a_cancelled_crawl_says_who_has_ended_it(admin):
    job = queued()
    press(admin, job, "cancel")

    assert "Somebody has cancelled it." in admin.get(page_of(job)).content.decode()
