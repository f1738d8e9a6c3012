"""The pages in a real browser: what a person sees after the first pictures are made."""

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import Page

from albums.models import Visibility
from albums.services import add_images_to_album
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory
from imagehub.jobs.models import JobStatus

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def page(chromium, live_server):
    """A page of a headless browser; it fails the test for every error the browser reports."""
    errors = []
    page = chromium.new_page(base_url=live_server.url)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
    page.on(
        "console",
        lambda message: errors.append(message.text) if "Content Security" in message.text else None,
    )
    yield page
    page.close()
    assert errors == []


def sign_in(page: Page) -> None:
    get_user_model().objects.create_superuser("demo", password="a long enough password")
    page.goto("/admin/")
    page.fill("#id_username", "demo")
    page.fill("#id_password", "a long enough password")
    page.click("input[type=submit]")


def test_the_gallery_shows_the_pictures_of_an_album(page):
    album = AlbumFactory(name="Starter cards", visibility=Visibility.PUBLIC)
    shown = ImageFactory(prompt="a red heart", visibility=Visibility.PUBLIC)
    hidden = ImageFactory(prompt="a secret", visibility=Visibility.PRIVATE)
    add_images_to_album(album, [shown, hidden])

    page.goto(f"/albums/{album.pk}")

    assert page.get_by_role("heading", name="Starter cards").is_visible()
    assert page.locator(".sheet img").count() == 1
    picture = page.locator(".sheet img").first
    assert picture.get_attribute("alt") == "a red heart"
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")


def test_staff_cancel_a_job_in_the_admin(page):
    job = GenerationJobFactory()
    GenerationJob.objects.filter(pk=job.pk).enqueue()
    sign_in(page)

    page.goto("/admin/generation/generationjob/")
    page.check("input[name=_selected_action]")
    page.select_option("select[name=action]", "cancel")
    page.click("button[name=index]")

    page.get_by_text("is stopping").wait_for()
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


def test_every_admin_page_opens(page):
    GenerationJobFactory()
    AlbumFactory()
    ImageFactory()
    sign_in(page)
    links = page.locator("#content-main th a").evaluate_all("links => links.map(link => link.href)")

    assert len(links) >= 10
    for link in links:
        response = page.goto(link)
        assert response is not None
        assert response.status == 200, link
