"""The pages of others that we serve, under our strict policy, in a real browser."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from playwright.sync_api import Page, expect

from albums.models import Album, Visibility
from albums.tests.factories import AlbumFactory, ImageFactory
from generation.models import GenerationJob
from generation.tests.factories import GenerationJobFactory
from imagehub.jobs.models import JobStatus
from imagehub.operations.tests.factories import GB, DiskSnapshotFactory

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.django_db(transaction=True),
]

REPORT = """
document.addEventListener("securitypolicyviolation", (event) => {
  window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile} ${event.sample}`);
});
"""


def is_fault(response) -> bool:
    return response.status >= 400 and not response.url.endswith("/favicon.ico")  # the admin has none


@pytest.fixture
def context(chromium, live_server):
    """A browser that fails the test for every violation of a policy, every failed script and every failed request."""
    faults = []
    context = chromium.new_context(base_url=live_server.url)
    context.expose_binding("reportViolation", lambda source, text: faults.append(text))
    context.add_init_script(REPORT)
    context.on(
        "console",
        lambda message: faults.append(message.text) if "Content Security" in message.text else None,
    )
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("response", lambda response: faults.append(response.url) if is_fault(response) else None)
    context.set_default_timeout(10_000)
    context.faults = faults
    yield context
    context.close()
    assert faults == []


@pytest.fixture
def page(context, sign_in) -> Page:
    sign_in(context)
    return context.new_page()


def test_the_fixture_sees_what_the_policy_stops(context, live_server):
    page = context.new_page()
    page.goto("/admin/login/")

    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">x</p><img src=x onerror=1>')"
    )
    page.wait_for_function("document.images.length")
    page.wait_for_timeout(200)

    assert any("style-src" in fault for fault in context.faults)
    assert any("script-src" in fault for fault in context.faults)
    context.faults.clear()


def test_staff_sign_in_by_the_form(context):
    get_user_model().objects.create_superuser("ada", password="a long enough password")
    page = context.new_page()
    page.goto("/admin/")
    page.fill("#id_username", "ada")
    page.fill("#id_password", "a long enough password")
    page.click("input[type=submit]")

    page.get_by_role("heading", name="Administration").wait_for()


def test_lists_filter_search_and_select(page):
    AlbumFactory(name="Herbarium", visibility=Visibility.PUBLIC)
    AlbumFactory(name="Ledger", visibility=Visibility.PRIVATE)

    page.goto("/admin/albums/album/")
    page.fill("#searchbar", "herb")
    page.press("#searchbar", "Enter")
    page.get_by_text("1 album", exact=True).first.wait_for()
    page.goto("/admin/albums/album/?visibility__exact=private")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.check("#action-toggle")  # a script counts what is selected
    page.get_by_text("1 of 1 selected").wait_for()
    page.locator("#changelist-filter details summary").first.click()


def test_an_album_gets_its_cover_from_the_popup(page):
    image = ImageFactory(prompt="a red heart", visibility=Visibility.PUBLIC)
    ImageFactory(prompt="elsewhere")
    album = AlbumFactory(name="Cards", images=[image])

    page.goto(f"/admin/albums/album/{album.pk}/change/")
    with page.expect_popup() as opened:
        page.click("#lookup_id_cover")
    popup = opened.value
    expect(popup.get_by_role("link", name="a red heart")).to_be_visible()
    assert popup.get_by_role("link", name="elsewhere").count() == 0
    popup.get_by_role("link", name="a red heart").click()
    popup.wait_for_event("close") if not popup.is_closed() else None
    assert page.input_value("#id_cover") == str(image.pk)
    page.click("input[name=_continue]")

    page.get_by_text("was changed successfully").wait_for()
    page.click(".add-row a")  # an inline row, made by a script
    assert Album.objects.get().cover == image


def test_dates_are_picked_from_the_calendar(page):
    user = get_user_model().objects.get()

    page.goto(f"/admin/auth/user/{user.pk}/change/")
    page.locator(".datetimeshortcuts a").first.click()  # "Today"
    page.locator(".date-icon").first.click()
    page.locator(".calendarbox .calendar").first.wait_for()
    page.locator(".calendarbox a", has_text="Cancel").first.click()
    page.locator(".clock-icon").first.click()
    page.locator(".clockbox .timelist").first.wait_for()
    page.locator("#id_user_permissions_add_all").wait_for()  # the two lists with a filter, made by a script
    page.fill("#id_user_permissions_input", "album")
    page.click("button.theme-toggle >> visible=true")


def test_what_people_write_is_text(page):
    attack = "\"><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    ImageFactory(prompt=attack, visibility=Visibility.PUBLIC)
    AlbumFactory(name=attack, description=attack, visibility=Visibility.PUBLIC)

    for address in ("/", "/admin/albums/album/", "/admin/albums/image/"):
        page.goto(address)
        page.get_by_text("<script>").first.wait_for()
        assert page.title() != "taken"


def test_a_job_page_shows_its_pictures(page):
    job = GenerationJobFactory(progress=40)

    page.goto("/admin/generation/generationjob/")
    page.locator("#result_list progress").wait_for()
    page.goto(f"/admin/generation/generationjob/{job.pk}/change/")
    page.goto("/admin/django_q/schedule/add/")  # pages of a library
    page.locator("#id_next_run_0").wait_for()


def test_the_cockpit_follows_what_runs_and_acts_on_it(page, settings):
    GenerationJobFactory(status=JobStatus.QUEUED, queued_at=timezone.now())
    page.goto("/admin/")
    row = page.locator("#cockpit-runs tbody tr")
    expect(row).to_have_count(0)

    job = GenerationJob.objects.claim(worker="here:1")
    expect(row).to_have_count(1)
    GenerationJob.objects.filter(pk=job.pk).update(progress=40)
    expect(row.locator("progress")).to_have_js_property("value", 40)
    row.get_by_role("button", name="Cancel").click()
    page.get_by_text("is cancelled, or about to be").wait_for()
    expect(row).to_contain_text("Stopping")
    job.refresh_from_db()
    assert job.cancel_requested_at

    settings.CONFIG_FILE.write_text("generate: nonsense")
    expect(page.locator("#cockpit-problems")).to_contain_text("The configuration file is broken")
    settings.CONFIG_FILE.write_text("rate_limits: {generate: {limit: 4711, window_seconds: 60}}")
    page.get_by_role("button", name="Read it again").click()
    page.get_by_text("The configuration was read again.").wait_for()
    expect(page.locator("#cockpit-limits")).to_contain_text("4711 in 60 s")

    page.fill("#cockpit-form input[name=reason]", "new disks")
    page.get_by_role("button", name="Pause generation").click()
    expect(page.locator("#cockpit-queues tr.paused")).to_contain_text("new disks")


def test_the_cockpit_says_when_it_hears_nothing_more(page, context):
    page.goto("/admin/")
    lost = page.locator("#cockpit [data-live-lost]")
    expect(lost).to_be_hidden()

    page.route("**/admin/cockpit/", lambda route: route.abort())
    expect(lost).to_be_visible()
    page.unroute("**/admin/cockpit/")
    expect(lost).to_be_hidden()


def test_the_cockpit_rests_while_nobody_looks(page):
    page.goto("/admin/")
    with page.expect_response("**/admin/cockpit/"):
        pass
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.isHidden ?? true})")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.clock.run_for(30_000)
    assert asked == []
    page.evaluate("window.isHidden = false")
    with page.expect_response("**/admin/cockpit/"):
        page.clock.run_for(5_000)


def test_the_gallery_and_a_picture_alone(page, context):
    image = ImageFactory(prompt="a red heart", visibility=Visibility.PUBLIC)

    page.goto("/")
    assert page.locator(".pictures img").first.evaluate(
        "image => image.decode().then(() => image.naturalWidth > 0)"
    )
    page.goto(f"/api/images/{image.pk}/file")
    assert page.evaluate("document.images[0].naturalWidth > 0")
    # The browser's own page around a picture wants a dark background: that is all it has to do without.
    assert all("inline style" in fault for fault in context.faults)
    context.faults.clear()


def test_the_api_page_asks_the_api(page):
    page.goto("/api/docs/")
    page.locator("#swagger-ui .info .title").wait_for()
    # The first that needs no sign-in: further down it draws only what is scrolled to.
    page.locator(".opblock-summary-path", has_text="/api/albums").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()

    page.locator(".live-responses-table .response-col_status", has_text="200").first.wait_for()


def test_the_course_of_the_disks_is_drawn(page):
    for place in range(40):
        DiskSnapshotFactory(
            ago=timedelta(hours=6 * (40 - place)),
            used_percent=40 + place,
            kinds={
                "media": {
                    "originals": 9 * GB + place * GB // 4,
                    "thumbnails": GB + place * GB // 20,
                    "other": 0,
                },
                "training": {"checkpoints": (10 + place % 8) * GB, "runs": GB, "cache": 4 * GB},
            },
        )

    page.goto("/admin/operations/disksnapshot/")
    page.get_by_role("link", name="Chart").click()

    drawings = page.locator("svg.disks")
    expect(drawings).to_have_count(3)
    checkpoints = drawings.nth(2).locator("polygon").first
    color = "el => getComputedStyle(el).fill"
    swatch = page.locator("tr", has_text="checkpoints").locator(".swatch")
    assert checkpoints.evaluate(color) == swatch.evaluate("el => getComputedStyle(el).backgroundColor")
    expect(page.get_by_role("img", name="Files of media by kind: originals")).to_be_visible()
    page.get_by_role("link", name="7 days").click()
    page.get_by_text("7 days", exact=True).first.wait_for()
