"""The cockpit of scraping in a real browser."""

import time
from dataclasses import asdict

import pytest

from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.jobs.models import WorkerPresence
from scraping.models import HostRecord, ScrapeJob
from scraping.politeness.hosts import HostState
from scraping.services.folders import log_of
from scraping.tests.factories import ScrapedImageFactory, ScrapedPageFactory
from scraping.tests.reviews import waiting_picture
from scraping.tests.sites import drawing

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.django_db(transaction=True)]

SHOWN = """images => Promise.all(images.map(image => {
  image.loading = "eager";
  return image.decode().then(() => image.naturalWidth > 0);
}))"""

CAPTIONS = ("A red fox in the snow", "An old mill by the river", "Ferns after rain", "The lighthouse at dusk")


def with_everything(job: ScrapeJob) -> None:
    """Give a crawl something of everything there is to see."""
    for number in range(7):
        waiting_picture(job, number, captions=[{"text": CAPTIONS[number % 4], "origin": "figcaption"}])
    for number, (state, reason) in enumerate(
        [
            ("saved", ""),
            ("saved", ""),
            ("filtered", "too_small"),
            ("duplicate", "same_bytes"),
            ("failed", "http_404"),
            ("robots", "disallowed"),
        ]
    ):
        ScrapedImageFactory(
            job=job, position=10 + number, state=state, reason=reason, image=ImageFactory() if state == "saved" else None,
            domain="com.example.cdn" if number % 2 else "example.gallery",
        )  # fmt: skip
    old, new = (
        ImageFactory(name=name, content=drawing(20, size), width=size[0], height=size[1])
        for name, size in (("there", (240, 180)), ("bigger", (480, 360)))
    )
    ScrapedImageFactory(job=job, position=20, image=new, resembles=old)
    ScrapedPageFactory.create_batch(9, job=job)
    ScrapedPageFactory(job=job, state="robots", reason="disallowed", robots="disallowed")
    HostRecord.objects.create(
        host="gallery.example", state=asdict(HostState(requests=214, errors=2, latency=0.18))
    )
    HostRecord.objects.create(
        host="cdn.example.com",
        state=asdict(
            HostState(
                requests=97, errors=11, latency=0.9, interval=4.0, failures=2, closed_until=time.time() + 600
            )
        ),
    )
    log_of(job).write_text(
        f"--- job {job.pk} of request -\nINFO Reading pages\nINFO Waiting for cdn.example.com\n"
    )


def test_the_cockpit_of_scraping(chromium, live_server, sign_in):
    errors = []
    page = chromium.new_page(base_url=live_server.url, viewport={"width": 1300, "height": 1500})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(response.url) if response.status >= 400 else None)
    page.on(
        "console", lambda message: errors.append(message.text) if "Content Security" in message.text else None
    )
    sign_in(page.context)
    AlbumFactory(name="Herbarium")

    page.goto("/admin/scraping/scrapejob/")
    page.get_by_role("link", name="Start a crawl").click()
    page.fill("#id_url", "http://127.0.0.1/")
    page.get_by_role("button", name="Start the crawl").click()
    page.locator(".field-url .errorlist li").wait_for()
    page.fill("#id_url", "https://gallery.example/foxes")
    page.locator(".field-album .select2-selection").click()
    page.locator(".select2-search__field").last.fill("herb")
    page.locator(".select2-results__option", has_text="Herbarium").click()
    page.check("#id_needs_review")
    page.fill("#id_name", "Foxes")
    page.get_by_role("button", name="Start the crawl").click()
    page.get_by_text("is queued").wait_for()

    job = ScrapeJob.objects.claim(worker="w")
    assert (job.name, job.album.name, job.needs_review) == ("Foxes", "Herbarium", True)
    WorkerPresence.objects.create(cluster="scraping", host="here", pid=1)
    with_everything(job)
    ScrapeJob.objects.filter(pk=job.pk).update(
        progress=40,
        message="2 of 14 pictures kept, 9 of 10 pages read",
        images_found=14,
        images_saved=2,
        pages=9,
    )
    page.locator("#live", has_text="9 of 10 pages read").wait_for(timeout=10_000)
    page.locator("#figures", has_text="Waits for review").wait_for()

    page.get_by_role("link", name="7 pictures to review").click()
    assert all(page.locator(".review img").evaluate_all(SHOWN))
    page.locator("input[name=item]").first.check()
    page.get_by_text("1 of 7 selected").wait_for()
    page.locator("input[name=item]").first.press("Enter")
    page.wait_for_timeout(300)
    page.get_by_text("1 of 7 selected").wait_for()
    assert job.items.filter(state="review", reason="").count() == 7
    page.get_by_role("button", name="Reject selected").click()
    page.get_by_text("1 picture is rejected").wait_for()
    page.check("#select-all")
    page.get_by_text("6 of 6 selected").wait_for()
    page.get_by_role("button", name="Approve selected").click()
    page.get_by_text("6 pictures are approved").wait_for()

    page.get_by_role("link", name="Foxes").click()
    page.get_by_role("link", name="1 picture looks like another").click()
    assert all(page.locator(".pair img").evaluate_all(SHOWN))
    page.get_by_role("button", name="Move the old one to the trash").click()
    page.get_by_text("was there is in the trash").wait_for()

    page.get_by_role("link", name="Foxes").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("is cancelled, or about to be").wait_for()
    page.goto("/admin/scraping/scrapejob/")
    page.get_by_text("Stopping").wait_for()
    for name in ("scrapedimage", "scrapedpage", "hostrecord", "sitefile"):
        page.goto(f"/admin/scraping/{name}/")
    page.goto(f"/admin/scraping/scrapedimage/{job.items.first().pk}/change/")
    page.close()
    assert errors == []
