"""The pages in a real browser: what a person sees after the first pictures are made."""

import socket
from uuid import uuid4

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from albums.models import Visibility
from albums.services import add_images_to_album
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory
from imagehub.context import at_work
from imagehub.jobs.models import JobStatus
from imagehub.jobs.run_log import RunLog

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
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


def test_the_gallery_shows_the_pictures_of_an_album(page):
    album = AlbumFactory(name="Starter cards", visibility=Visibility.PUBLIC)
    shown = ImageFactory(prompt="a red heart", visibility=Visibility.PUBLIC)
    hidden = ImageFactory(prompt="a secret", visibility=Visibility.PRIVATE)
    add_images_to_album(album, [shown, hidden])

    page.goto(f"/albums/{album.pk}")

    assert page.get_by_role("heading", name="Starter cards").is_visible()
    expect(page.locator(".pictures img")).to_have_count(1)
    picture = page.locator(".pictures img").first
    assert picture.get_attribute("alt") == "a red heart"
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")


def test_staff_cancel_a_job_in_the_admin(page, sign_in):
    job = GenerationJobFactory()
    GenerationJob.objects.filter(pk=job.pk).enqueue()
    sign_in(page.context)

    page.goto("/admin/generation/generationjob/")
    page.check("input[name=_selected_action]")
    page.select_option("select[name=action]", "cancel")
    page.click("button[name=index]")

    page.get_by_text("1 job is cancelled").wait_for()
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELLED


def waiting(**fields) -> GenerationJob:
    return GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now(), **fields)


def choose(page: Page, action: str) -> None:
    page.locator("#action-toggle").check()
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")


def test_staff_pause_and_resume_the_queue(page, sign_in):
    waiting()
    sign_in(page.context)
    page.goto("/admin/generation/generationjob/")
    expect(page.locator("#queue")).to_contain_text("Waiting1")

    page.fill("#switch input[name=reason]", "new disks")
    page.get_by_role("button", name="Pause the queue").click()

    expect(page.locator("#queue .paused")).to_contain_text("Paused by ada")
    expect(page.locator("#queue .paused")).to_contain_text("new disks")
    assert GenerationJob.objects.claim(worker="w") is None
    page.get_by_role("button", name="Resume the queue").click()
    page.get_by_text("Jobs are taken again.").wait_for()
    assert GenerationJob.objects.claim(worker="w") is not None


def test_staff_put_jobs_first_and_try_them_again(page, sign_in):
    job = waiting()
    sign_in(page.context)
    page.goto("/admin/generation/generationjob/")

    choose(page, "put_first")
    page.get_by_text("1 job was put before others").wait_for()
    choose(page, "cancel")
    page.get_by_text("1 job is cancelled").wait_for()
    choose(page, "retry")
    page.get_by_text("1 picture is queued again").wait_for()

    again = GenerationJob.objects.get(retry_of=job)
    assert (again.priority, again.status, again.owner.username) == (10, JobStatus.QUEUED, "ada")
    page.goto(f"/admin/generation/generationjob/{again.pk}/change/")
    expect(page.locator(".field-tries .readonly a")).to_have_count(2)


def test_the_list_follows_the_queue_by_itself(page, sign_in):
    waiting()
    sign_in(page.context)
    page.goto("/admin/generation/generationjob/")
    expect(page.locator("td.field-state")).to_contain_text("Queued")

    GenerationJob.objects.claim(worker="w")

    expect(page.locator("td.field-state")).to_contain_text("Running", timeout=10_000)
    expect(page.locator("#queue")).to_contain_text("Running1")


def test_the_page_of_a_job_shows_its_parameters_and_what_the_engine_said(page, sign_in, settings):
    job = waiting(seed=4711)
    job = GenerationJob.objects.claim(worker=f"{socket.gethostname()}:4242")
    log = RunLog(settings.VAR_DIR / "logs" / "engine-4242.log", limit_bytes=100_000)
    with at_work(job=str(uuid4())):
        log.begin_job()
        log.write_line("something of another job")
    with at_work(job=str(job.pk)):
        log.begin_job()
        log.write_line("loaded in 0.3 s")
    sign_in(page.context)

    page.goto(f"/admin/generation/generationjob/{job.pk}/change/")

    assert page.get_by_text("4711", exact=True).is_visible()
    expect(page.locator(".log")).to_contain_text("loaded in 0.3 s")
    expect(page.locator(".log")).not_to_contain_text("another job")
    expect(page.locator("#live [role=status]")).not_to_be_empty()


def test_every_admin_page_opens(page, sign_in):
    GenerationJobFactory()
    AlbumFactory()
    ImageFactory()
    sign_in(page.context)
    page.goto("/admin/")
    links = page.locator("#content-main th a").evaluate_all("links => links.map(link => link.href)")

    assert len(links) >= 10
    for link in links:
        response = page.goto(link)
        assert response is not None
        assert response.status == 200, link
