"""The pages of the library in a real browser: rows, endless lists, keys, and what staff do in the admin."""

import pytest
from playwright.sync_api import Page, expect

from albums.models import Album, Image
from albums.pages.listing import PAGE_SIZE
from albums.services import index_words
from albums.tests.factories import AlbumFactory, ImageFactory, many_images, picture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.django_db(transaction=True),
]

HASH = "LEHV6nWB2yk8pyo0adR*.7kCMdnj"  # the example of its authors
SIDES = [(1024, 1024), (1536, 640), (640, 1536), (1216, 832), (832, 1216)]


@pytest.fixture
def page(chromium, live_server):
    """A page that fails the test for every error that the browser reports."""
    faults = []
    context = chromium.new_context(
        base_url=live_server.url, viewport={"width": 1000, "height": 700}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "response",
        lambda answer: (
            faults.append(f"{answer.status} {answer.url}")
            if answer.status >= 400 and not answer.url.endswith("/favicon.ico")
            else None
        ),
    )
    page.on(
        "console",
        lambda message: faults.append(message.text) if "Content Security" in message.text else None,
    )
    page.faults = faults
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def staff_page(page, sign_in):
    sign_in(page.context)
    return page


def images(count, **values):
    """Make public images that differ in shape; the first is the newest."""
    made = many_images(count, public=True, content=picture(size=(400, 300)), placeholder=HASH, **values)[::-1]
    for number, image in enumerate(made):
        image.width, image.height = SIDES[number % 5]
        image.prompt = f"picture no. {number}"
    Image.objects.bulk_update(made, ["width", "height", "prompt"])
    return made


def boxes(page: Page):
    """Return where the tiles stand: left, top, width, height."""
    return page.locator(".tile").evaluate_all(
        "tiles => tiles.map(tile => { const box = tile.getBoundingClientRect();"
        " return [box.left, box.top + scrollY, box.width, box.height].map(Math.round) })"
    )


def assert_fits(page: Page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_rows_are_as_wide_as_the_list_and_follow_the_window(page):
    images(30)
    page.goto("/")
    page.locator(".placed").first.wait_for()

    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        rows = {}
        for left, top, wide, high in boxes(page):
            rows.setdefault(top, []).append((left, left + wide, high))
        right = round(page.locator(".pictures").evaluate("list => list.getBoundingClientRect().right"))
        assert len(rows) > 2
        for row in list(rows.values())[:-1]:
            assert len({high for _, _, high in row}) == 1
            assert abs(row[-1][1] - right) <= 1
        assert_fits(page)


def test_a_list_goes_on_while_somebody_scrolls_and_nothing_jumps(page):
    made = images(PAGE_SIZE + 70)
    page.goto("/")
    page.locator(".placed").first.wait_for()
    before = boxes(page)[:20]
    page.evaluate(
        "new PerformanceObserver(list => { window.shifts = (window.shifts ?? 0) + list.getEntries().filter(e => !e.hadRecentInput).reduce((sum, e) => sum + e.value, 0) }).observe({type: 'layout-shift', buffered: true})"
    )

    for _ in range(12):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(120)
    expect(page.locator(".said")).to_have_text(f"All {len(made)} pictures are shown.")

    alts = page.locator(".tile img").evaluate_all("images => images.map(image => image.alt)")
    assert alts == [image.prompt for image in made]
    assert boxes(page)[:20] == before
    assert page.evaluate("window.shifts ?? 0") < 0.05
    expect(page.locator(".pages [rel=next]")).to_have_count(0)


def test_it_says_so_when_the_next_page_does_not_come(page):
    images(PAGE_SIZE + 5)
    page.route("**/api/images?*", lambda route: route.abort())
    page.goto("/")
    page.mouse.wheel(0, 20_000)

    again = page.get_by_role("link", name="Try again")
    again.wait_for()
    page.unroute("**/api/images?*")
    again.click()

    expect(page.locator(".tile")).to_have_count(PAGE_SIZE + 5)


def test_whoever_comes_back_finds_the_place_where_they_were(page):
    images(PAGE_SIZE + 70)
    page.goto("/")
    page.mouse.wheel(0, 30_000)
    expect(page.locator(".tile")).to_have_count(PAGE_SIZE + 70)
    page.locator(".tile a").nth(100).scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    page.locator(".tile a").nth(100).click()
    page.locator(".about h1").wait_for()

    page.keyboard.press("Escape")

    expect(page.locator(".tile")).to_have_count(PAGE_SIZE + 70)
    page.wait_for_function("place => Math.abs(scrollY - place) < 50", arg=place)


def test_without_scripts_there_are_rows_and_pages(chromium, live_server):
    images(PAGE_SIZE + 3)
    context = chromium.new_context(base_url=live_server.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")

    expect(page.locator(".tile")).to_have_count(PAGE_SIZE)
    assert page.locator(".tile").first.bounding_box()["width"] > 100
    page.get_by_role("link", name="More").click()
    expect(page.locator(".tile")).to_have_count(3)
    context.close()


def test_placeholders_stand_where_pictures_are_awaited(page):
    images(3)
    waiting, is_open = [], []
    page.route("**/thumbnail*", lambda route: route.continue_() if is_open else waiting.append(route))
    page.goto("/", wait_until="domcontentloaded")

    canvas = page.locator(".tile canvas").first
    canvas.wait_for()
    colours = canvas.evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, 24, 24).data].filter((_, i) => i % 4 === 0)"
    )
    assert len(set(colours)) > 10  # a blurred picture, not one colour
    assert page.evaluate(f"ImageHubBlurHash.averageColour('{HASH}')") == "rgb(151 150 149)"

    is_open.append(True)
    for route in waiting:
        route.continue_()
    expect(page.locator(".tile canvas")).to_have_count(0)


def test_searching_leads_to_what_is_found(page):
    made = images(4)
    index_words([image.pk for image in made])
    page.goto("/")
    page.fill("input[name=q]", '"no. 2"')
    page.press("input[name=q]", "Enter")

    expect(page.locator(".tile")).to_have_count(1)
    assert page.locator(".tile img").get_attribute("alt") == "picture no. 2"


def test_keys_lead_through_an_album(page):
    made = images(3)
    album = AlbumFactory(public=True, name="Cards", images=made)
    page.goto(f"/albums/{album.pk}")
    page.keyboard.press("Tab")  # to the link that skips the bar
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator(".tile a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/images/{made[0].pk}?album={album.pk}")  # and until its script hears keys
    for key, wanted in (
        ("ArrowRight", made[1]),
        ("ArrowRight", made[2]),
        ("ArrowRight", made[2]),
        ("ArrowLeft", made[1]),
    ):
        page.keyboard.press(key)
        page.wait_for_url(f"**/images/{wanted.pk}?album={album.pk}")

    page.keyboard.press("f")
    assert "filled" in page.locator("body").get_attribute("class")
    page.keyboard.press("Escape")
    assert "filled" not in page.locator("body").get_attribute("class")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.get_by_role("button", name="Close").click()

    page.keyboard.press("Escape")
    page.wait_for_url(f"**/albums/{album.pk}")


def test_prompts_are_copied(page, live_server):
    image = images(1, seed=4711)[0]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    page.goto(f"/images/{image.pk}")

    page.get_by_role("button", name="Copy the seed").click()
    page.get_by_text("Copied").first.wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "4711"


def test_staff_see_what_is_flagged_when_they_ask(staff_page):
    ImageFactory(nsfw=Image.Nsfw.FLAGGED, width=800, height=600, content=picture(size=(800, 600)))
    staff_page.goto("/")
    image = staff_page.locator(".tile img").first
    assert "blur" in image.evaluate("image => getComputedStyle(image).filter")

    staff_page.get_by_role("button", name="Flagged: show").click()

    assert image.evaluate("image => getComputedStyle(image).filter") == "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_and_can_be_read(page, scheme):
    made = images(6)
    long = "an-endless-word-" * 30
    Image.objects.filter(pk=made[0].pk).update(prompt=long, name=long[:200])
    album = AlbumFactory(public=True, name=long[:200], images=made)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 800})

    for address in ("/", "/albums", f"/albums/{album.pk}", f"/images/{made[0].pk}?album={album.pk}"):
        page.goto(address)
        assert_fits(page)
        assert _contrast(page) >= 4.5, address


def _contrast(page):
    """Return the lowest contrast between the colours of texts and the page (WCAG 2)."""
    return page.evaluate("""() => {
      const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
      const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return Math.min(...[...document.querySelectorAll("main h1, main p, main dt, main dd, .facts, .bar nav a, .origin")]
        .filter((element) => element.checkVisibility() && element.textContent.trim())
        .map((element) => light(getComputedStyle(element).color))
        .map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)));
    }""")


def test_staff_filter_change_and_sort_images_in_the_admin(staff_page):
    made = images(3)
    album = AlbumFactory(name="Cards")

    staff_page.goto("/admin/albums/image/")
    staff_page.check(f"input[value='{made[0].pk}']")
    staff_page.select_option("select[name=action]", "make_private")
    staff_page.click("button[name=index]")
    staff_page.get_by_text("1 image is private now.").wait_for()
    staff_page.get_by_role("link", name="Private").click()
    expect(staff_page.locator("#result_list tbody tr")).to_have_count(1)

    staff_page.goto("/admin/albums/image/")
    staff_page.check("#action-toggle")
    staff_page.select_option("select[name=action]", "put_into_album")
    staff_page.click("button[name=index]")
    staff_page.locator(".select2-selection").first.click()
    staff_page.locator(".select2-search__field").fill("card")
    staff_page.locator(".select2-results__option", has_text="Cards").click()
    staff_page.click("input[type=submit]")
    staff_page.get_by_text("3 of 3 images are new in “Cards”.").wait_for()
    assert album.memberships.count() == 3


def test_staff_put_an_album_in_order_by_dragging_and_by_buttons(staff_page):
    first, second, third = images(3)
    album = AlbumFactory(images=[first, second, third])
    staff_page.set_viewport_size({"width": 1200, "height": 2400})
    staff_page.goto(f"/admin/albums/album/{album.pk}/change/")
    rows = staff_page.locator("#memberships-group tr.has_original")

    rows.nth(2).get_by_role("button", name="Move up").click()
    grip, target = rows.nth(0).locator(".grip"), rows.nth(2)
    grip.hover()
    staff_page.mouse.down()
    box = target.bounding_box()
    staff_page.mouse.move(box["x"] + 60, box["y"] + box["height"] - 5, steps=8)
    staff_page.mouse.up()
    staff_page.click("input[name=_continue]")

    staff_page.get_by_text("was changed successfully").wait_for()
    order = list(album.memberships.in_order().values_list("image", flat=True))
    assert order == [third.pk, second.pk, first.pk]


def test_staff_upload_pictures_and_read_what_became_of_each(staff_page):
    album = Album.objects.create(name="Cards")
    sent = []

    def answer(route):
        sent.append(route.request.post_data_buffer)
        route.fulfill(
            status=201,
            json={
                "results": [
                    {"name": "heart.png", "image": {"id": str(album.pk), "width": 8, "height": 8}},
                    {"name": "notes.png", "error": {"code": "unreadable", "detail": "This is no picture."}},
                ]
            },
        )

    staff_page.route("**/api/images/upload", answer)
    staff_page.goto("/admin/albums/image/upload/")
    staff_page.set_input_files(
        "#files",
        [
            {"name": "heart.png", "mimeType": "image/png", "buffer": picture()},
            {"name": "notes.png", "mimeType": "image/png", "buffer": b"notes"},
        ],
    )
    staff_page.locator(".select2-selection").first.click()
    staff_page.locator(".select2-results__option", has_text="Cards").click()
    staff_page.click("input[type=submit]")

    staff_page.get_by_text("1 of 2 stored.").wait_for()
    assert staff_page.locator("#outcomes .stored").inner_text() == "heart.png\tstored, 8 × 8"
    assert staff_page.locator("#outcomes .refused").inner_text() == "notes.png\tThis is no picture."
    assert len(sent) == 1
    assert str(album.pk).encode() in sent[0]
