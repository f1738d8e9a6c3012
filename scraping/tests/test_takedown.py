"""Taking down what was fetched from a host or a page: all of it, and nothing else."""

import pytest
from django.core.management import CommandError

from albums import lineage
from albums.lineage import Key, walk_results
from albums.models import Image
from albums.tests.factories import ImageFactory
from imagehub.accounts.models import AuditEntry
from imagehub.jobs.models import JobStatus
from scraping.models import ScrapedImage, ScrapeJob, domain_key
from scraping.services.crawls import cancel_crawl
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory
from scraping.tests.reviews import reviewed_crawl, waiting_picture
from scraping.tests.takedowns import ended, fetched, found, ids, plan, queued, takedown

pytestmark = pytest.mark.django_db


class TestWhatIsFoundAtAHost:
    def test_is_what_was_fetched_from_it_or_below_it_or_shown_there(self):
        of_host = fetched("https://example.com/1.png")
        below = fetched("https://cdn.static.example.com/1.png")
        shown = fetched(page_url="https://www.example.com/page")
        fetched("https://notexample.com/1.png")
        fetched("https://examples.com/1.png")
        fetched("https://example.com.evil.example/1.png")
        fetched("https://example.community/1.png")

        assert found("--source-domain", "example.com") == ids(of_host, below, shown)
        assert found("--source-domain", "static.example.com") == ids(below)
        assert found("--source-domain", "com.example") == set()

    @pytest.mark.parametrize(
        "spelling", ["EXAMPLE.com.", " example.com:8443 ", "*.example.com", ".example.com", "ｅxample．com"]
    )
    def test_however_the_host_is_spelled(self, spelling):
        image = fetched("https://example.com/1.png")

        assert found("--source-domain", spelling) == ids(image)

    @pytest.mark.parametrize("stored", ["bücher.example", "XN--bcher-KVA.example.", "www.BÜCHER.example"])
    @pytest.mark.parametrize("asked", ["Bücher.example", "xn--bcher-kva.example"])
    def test_in_any_script(self, stored, asked):
        image = ImageFactory()
        ScrapedImageFactory(job=ended(), image=image, domain=domain_key(stored))

        assert found("--source-domain", asked) == ids(image)

    def test_an_address_of_the_internet_is_that_one_alone(self):
        four, six = fetched("http://93.184.216.34:8080/1.png"), ImageFactory()
        ScrapedImageFactory(job=ended(), image=six, domain=domain_key("2001:db8:0::1"))

        assert found("--source-domain", "93.184.216.34") == ids(four)
        for spelling in ("2001:DB8::1", "[2001:db8::1]", "[2001:db8::1]:443"):
            assert found("--source-domain", spelling) == ids(six)

    @pytest.mark.parametrize("written", ["", ".", "https://example.com/", "exa mple.com", "93.184", "a/b"])
    def test_what_is_no_host_is_refused(self, written):
        with pytest.raises(CommandError, match="no host"):
            takedown("--source-domain", written)

    def test_is_what_redirects_have_led_to(self):
        image = fetched("https://short.example/1", final_url="https://cdn.example.com:8443/1.png")
        fetched("https://short.example/2", final_url="https://short.example/example.com/2.png")

        assert found("--source-domain", "example.com") == ids(image)

    def test_is_what_redirects_have_led_past_it(self):
        image = fetched(
            "https://short.example/1",
            final_url="https://pictures.example/1.png",
            redirects=["https://www.example.com/1", "https://pictures.example/1.png"],
        )
        fetched("https://short.example/2", redirects=["https://short.example/example.com"])

        assert found("--source-domain", "example.com") == ids(image)

    def test_is_what_pages_show_to_which_pages_there_have_led(self):
        image = fetched(page_url="https://good.example/p")
        fetched(page_url="https://good.example/other")
        for url, final_url in (
            ("https://www.example.com/p", "https://good.example/p"),
            ("https://example.com/a", "https://www.example.com/b"),
        ):
            host = url.split("/")[2]
            ScrapedPageFactory(job=ended(), url=url, domain=domain_key(host), final_url=final_url)

        assert found("--source-domain", "example.com") == ids(image)

    def test_is_what_waits_for_approval(self):
        job = reviewed_crawl()
        there = {"domain": domain_key("example.com"), "url": "https://example.com/1.png"}
        undecided = waiting_picture(job, 1, **there)
        approved = waiting_picture(job, 2, page_domain=domain_key("example.com"), reason="approved")
        moved = waiting_picture(job, 3, final_url="https://example.com/3.png")
        waiting_picture(job, 4)
        waiting_picture(job, 5, **there | {"url": "https://example.com/5.png"}, state="filtered")

        assert found("--source-domain", "example.com") == ids(undecided, approved, moved)

    def test_is_what_waits_elsewhere_with_the_same_bytes(self):
        job = reviewed_crawl()
        kept, taken, _other = (waiting_picture(job, number) for number in range(3))
        image = ImageFactory()
        ScrapedImage.objects.filter(pk=taken.pk).update(state="saved", image=image)
        for item in (kept, taken):
            ScrapedImageFactory(
                job=job,
                position=10 + item.position,
                state="duplicate",
                duplicate_of=item.sha256,
                domain=domain_key("example.com"),
            )

        assert found("--source-domain", "example.com") == ids(kept, image)

    def test_is_what_the_library_had_already_and_was_met_there(self):
        mine = ImageFactory(public=True)
        fetched("https://example.com/1.png", image=mine, state="duplicate", reason="in_library")
        ScrapedImageFactory(job=ended(), domain=domain_key("example.com"), state="filtered")

        assert found("--source-domain", "example.com") == ids(mine)

    def test_is_what_crawls_of_it_have_brought_that_left_no_addresses(self):
        imported, other = ended(host="www.example.com"), ended(host="notexample.com")
        image, _ = (
            ImageFactory(source_kind=Image.SourceKind.SCRAPE, source_id=job.pk) for job in (imported, other)
        )
        known = ImageFactory(
            source_kind=Image.SourceKind.SCRAPE, source_id=imported.pk, source_index=1, public=True
        )
        fetched(image=known)

        assert found("--source-domain", "example.com") == ids(image)

    def test_is_each_crawl_that_is_there_still(self):
        there = queued(host="www.example.com", config=plan("https://www.example.com/"))
        sent = queued(config=plan("https://gallery.example/", image_urls=["https://example.com/1.png"]))
        met, read = queued(), queued()
        ScrapedImageFactory(job=met, domain=domain_key("example.com"), state="failed")
        ScrapedPageFactory(job=read, domain=domain_key("example.com"))
        queued(host="notexample.com", config=plan("https://notexample.com/"))
        ended(host="example.com", config=plan("https://example.com/"))

        assert found("--source-domain", "example.com") == ids(there, sent, met, read)


class TestWhatIsFoundOnAPage:
    def test_is_what_it_shows_and_nothing_of_the_pages_beside_it(self):
        image = fetched(page_url="https://example.com/a?id=1")
        fetched(page_url="https://example.com/a?id=2")
        fetched(page_url="https://example.com/a")
        fetched(page_url="https://example.com/a?id=1&x=2")

        for spelling in ("https://example.com/a?id=1", "HTTPS://EXAMPLE.com:443/a?id=1#top"):
            assert found("--source-page", spelling) == ids(image)

    def test_is_what_it_shows_where_it_has_moved_to(self):
        image = fetched(page_url="https://example.com/new")
        ScrapedPageFactory(
            job=ended(),
            url="https://old.example/",
            domain=domain_key("old.example"),
            final_url="https://example.com/new",
        )

        assert found("--source-page", "https://old.example/") == ids(image)

    def test_is_the_picture_that_it_is(self):
        image = fetched("https://example.com/1.png")
        moved = fetched("https://short.example/1", final_url="https://example.com/1.png")

        assert found("--source-page", "https://example.com/1.png") == ids(image, moved)

    def test_is_each_crawl_that_reads_it(self):
        sent = queued(config=plan("https://example.com/a"))
        read = queued()
        ScrapedPageFactory(job=read, url="https://example.com/a", domain=domain_key("example.com"))
        queued(config=plan("https://example.com/"))

        assert found("--source-page", "https://example.com/a") == ids(sent, read)

    def test_is_what_waits_for_approval(self):
        job = reviewed_crawl()
        waiting = waiting_picture(job, 1, page_url="https://gallery.example/a")
        waiting_picture(job, 2, page_url="https://gallery.example/b")

        assert found("--source-page", "https://gallery.example/a") == ids(waiting)

    @pytest.mark.parametrize(
        "written",
        [
            "",
            " ",
            "https://example.com:x/",
            "example.com/a",
            "ftp://example.com/a",
            "https:///a",
            "https://[a",
        ],
    )
    def test_what_is_no_address_is_refused(self, written):
        with pytest.raises(CommandError, match="whole address"):
            takedown("--source-page", written)


class TestATakedown:
    def test_quarantines_pictures_and_cancels_crawls(self):
        image, other = fetched("https://example.com/1.png"), fetched()
        job = queued(host="example.com")

        report = takedown("--source-domain", "example.com", "--yes", "--reason", "asked by the artist")

        assert report["quarantined"] == {"scrape_job": 1, "image": 1}
        image.refresh_from_db()
        job.refresh_from_db()
        other.refresh_from_db()
        assert (image.visibility, image.deleted_at is not None) == ("private", True)
        assert (job.status, other.deleted_at) == (JobStatus.CANCELLED, None)
        entry = AuditEntry.objects.get(action="scrapejob.cancel")
        assert entry.before == {"status": "queued", "needs_review": False}
        assert entry.after == {"status": "cancelled", "needs_review": True, "reason": "asked by the artist"}
        assert takedown("--source-domain", "example.com", "--yes")["quarantined"] == {"image": 0}

    @pytest.mark.parametrize(
        "secret", ["https://{}/a?sig=4711", "https://ada:4711@{}/a", "https://{}/a#sig=4711"]
    )
    def test_notes_of_a_page_only_where_it_is(self, secret):
        page = secret.format("example.com:8443")
        image = fetched(page_url=page.partition("#")[0])

        takedown("--source-page", page, "--yes")

        entry = AuditEntry.objects.get(target_id=str(image.pk))
        assert entry.after["reason"] == "takedown of page https://example.com:8443/a"

    def test_sets_crawls_under_review_that_are_being_cancelled_already(self):
        job = queued(host="example.com")
        ScrapeJob.objects.claim(worker="w")
        cancel_crawl(job)
        AuditEntry.objects.all().delete()

        report = takedown("--source-domain", "example.com", "--yes")

        assert report["quarantined"] == {"scrape_job": 0}
        entry = AuditEntry.objects.get(action="scrapejob.cancel")
        assert (entry.before["needs_review"], entry.after["needs_review"]) == (False, True)
        takedown("--source-domain", "example.com", "--yes")
        assert AuditEntry.objects.filter(action="scrapejob.cancel").count() == 1

    def test_puts_what_became_an_image_meanwhile_into_quarantine(self):
        item = waiting_picture(reviewed_crawl(), 1)
        image = ImageFactory(public=True)
        ScrapedImage.objects.filter(pk=item.pk).update(state="saved", image=image)

        assert list(walk_results([Key("source", str(item.pk))])) == [
            [Key("source", str(item.pk))],
            [Key("image", str(image.pk))],
        ]
        assert lineage.quarantine([Key("source", str(item.pk))], "a complaint") == 0

    def test_leaves_what_the_same_crawl_has_brought_from_elsewhere(self):
        job = queued(host="example.com")
        elsewhere = fetched(job=job)

        takedown("--source-domain", "example.com", "--yes")

        elsewhere.refresh_from_db()
        assert elsewhere.deleted_at is None
