"""Deciding in the admin: which pictures are wanted, and which of two that look the same."""

import pytest
from django.test import Client
from django.urls import reverse

from albums.models import Image
from albums.tests.factories import ImageFactory
from imagehub.accounts.tests.factories import UserFactory
from scraping.admin import review_pages
from scraping.services import previews, reviewing
from scraping.services.folders import folder_of
from scraping.tests.factories import ScrapedImageFactory
from scraping.tests.reviews import reviewed_crawl, waiting_picture
from scraping.tests.sites import drawing

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin():
    client = Client()
    client.force_login(UserFactory(staff=True))
    return client


def url_of(page, job):
    return reverse(f"admin:scraping_scrapejob_{page}", args=[job.pk])


def send(client, page, job, **fields):
    response = client.post(url_of(page, job), fields, follow=True)
    return " ".join(str(message) for message in response.context["messages"])


def ends(job):
    return [f"{item.state} {item.reason}".strip() for item in job.items.order_by("position")]


def thumbnail(client, item):
    return client.get(reverse("admin:scraping_scrapedimage_thumbnail", args=[item.pk]))


class TestReview:
    def test_shows_what_waits_page_by_page(self, admin, monkeypatch, django_assert_max_num_queries):
        monkeypatch.setattr(review_pages, "PICTURES_PER_PAGE", 2)
        job = reviewed_crawl(2)
        waiting_picture(job, 2, captions=[{"text": "A fox", "origin": "alt"}])

        with django_assert_max_num_queries(12):
            first = admin.get(url_of("review", job)).content.decode()
        second = admin.get(url_of("review", job) + "?p=2").content.decode()

        assert "3 pictures wait" in first
        assert "240 × 180" in first
        assert first.count('name="item"') == 2
        assert second.count('name="item"') == 1
        assert "A fox" in second
        assert "Approve all 3" in second

    def test_selected_pictures_are_approved_or_rejected(self, admin):
        job = reviewed_crawl(3)
        first, second = job.items.order_by("position")[:2]

        assert "1 picture is approved" in send(admin, "review", job, act="approve", item=[first.pk])
        assert "1 picture is rejected" in send(admin, "review", job, act="reject", item=[second.pk])
        assert ends(job) == ["review approved", "filtered rejected", "review"]
        assert "None of these" in send(admin, "review", job, act="approve", item=[second.pk])
        assert "no such picture" in send(admin, "review", job, act="approve", item=["9" * 30])
        assert "Select pictures first" in send(admin, "review", job, act="approve")
        assert (
            "about to be taken in"
            in admin.get(reverse("admin:scraping_scrapejob_change", args=[job.pk])).content.decode()
        )

    def test_whoever_says_nothing_that_is_known_decides_nothing(self, admin):
        job = reviewed_crawl(1)
        item = job.items.get()

        for fields in ({}, {"act": ""}, {"act": "keep"}):
            assert admin.post(url_of("review", job), fields | {"item": [item.pk]}).status_code == 404
        assert ends(job) == ["review"]

    def test_all_are_those_that_were_there_to_be_seen(self, admin):
        job = reviewed_crawl(3)
        last = max(job.items.values_list("pk", flat=True))
        waiting_picture(job, 9)

        assert "3 pictures are approved" in send(admin, "review", job, act="approve_all", last=last)
        assert ends(job) == ["review approved"] * 3 + ["review"]

    def test_a_stranger_s_bytes_are_shown_to_nobody(self, admin):
        job = reviewed_crawl(1)
        item = job.items.get()

        response = thumbnail(admin, item)

        assert response["Content-Type"] == "image/webp"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert "private" in response["Cache-Control"]
        assert response.content[:4] == b"RIFF"
        assert response.content[8:12] == b"WEBP"
        tiny = waiting_picture(job, 1, body=drawing(1, (40, 30)), width=40, height=30)
        assert thumbnail(admin, tiny).content[8:12] == b"WEBP"  # however small it is

    def test_what_cannot_be_shown_is_not(self, admin):
        job = reviewed_crawl()
        damaged = waiting_picture(job, 1, body=drawing(1)[:300])
        gone = waiting_picture(job, 2)
        (folder_of(job).pictures / gone.file_name).unlink()
        saved = waiting_picture(job, 3, state="saved")

        for item in (damaged, gone, saved):
            assert thumbnail(admin, item).status_code == 404
        assert admin.get("/admin/scraping/scrapedimage/nothing/thumbnail/").status_code == 404

    def test_only_staff_decide_and_see(self):
        job = reviewed_crawl(1)
        item = job.items.get()
        client = Client()
        client.force_login(UserFactory())

        client.post(url_of("review", job), {"act": "reject", "item": [item.pk]})
        assert ends(job) == ["review"]
        assert thumbnail(client, item).status_code == 302
        assert previews.thumbnail_of(item)


class TestLookalikes:
    def test_both_are_shown_and_one_goes(self, admin, django_assert_max_num_queries):
        job = reviewed_crawl()
        items = []
        for number in range(4):
            old, new = ImageFactory(name=f"old {number}"), ImageFactory(name=f"new {number}", width=99)
            items.append(ScrapedImageFactory(job=job, position=number, image=new, resembles=old))

        with django_assert_max_num_queries(12):
            html = admin.get(url_of("lookalikes", job)).content.decode()
        assert "old 3" in html
        assert "99 × 8" in html
        assert (
            "4 pictures look like others"
            in admin.get(reverse("admin:scraping_scrapejob_change", args=[job.pk])).content.decode()
        )

        assert "Both pictures are kept" in send(admin, "lookalikes", job, item=items[0].pk, keep="both")
        assert "was there is in the trash" in send(admin, "lookalikes", job, item=items[1].pk, keep="new")
        assert "new picture is in the trash" in send(admin, "lookalikes", job, item=items[2].pk, keep="old")

        assert set(Image.objects.in_trash().values_list("name", flat=True)) == {"old 1", "new 2"}
        assert list(reviewing.lookalikes(job)) == [items[3]]
        assert "somebody has chosen" in send(admin, "lookalikes", job, item=items[0].pk, keep="old").lower()
        other = reviewed_crawl()
        for fields in ({"item": items[3].pk, "keep": "neither"}, {"item": "x", "keep": "new"}):
            assert admin.post(url_of("lookalikes", job), fields).status_code == 404
        assert (
            admin.post(url_of("lookalikes", other), {"item": items[3].pk, "keep": "new"}).status_code == 404
        )
