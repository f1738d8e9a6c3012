"""Contact sheets of set runs."""

from io import BytesIO

import PIL.Image
import pytest
from rest_framework.test import APIClient

from albums.models import Image
from albums.tests.factories import ImageFactory, picture
from generation.models import GenerationJob, SetRun
from generation.services import contact_sheets
from generation.services.contact_sheets import GAP, LINE, TILE, contact_sheet
from generation.tests.factories import GenerationJobFactory
from imagehub import storage
from imagehub.accounts.tests.factories import UserFactory
from imagehub.errors import Invalid

pytestmark = pytest.mark.django_db


def make_run(names, *, made=()) -> SetRun:
    owner = UserFactory(staff=True)
    run = SetRun.objects.create(owner=owner, theme="x", total=len(names))
    for index, name in enumerate(names):
        job = GenerationJobFactory(owner=owner, set_run=run, set_index=index, name=name)
        if index in made:
            ImageFactory(
                source_kind=Image.SourceKind.GENERATION,
                source_id=job.pk,
                content=picture(color=made[index], size=(64, 64)),
            )
    return run


def pixels(sheet) -> PIL.Image.Image:
    return PIL.Image.open(BytesIO(sheet.content)).convert("RGB")


def test_shows_each_picture_at_its_place_and_a_grey_square_for_what_is_missing():
    run = make_run(["Ace", "Two", "Three", "Four"], made={0: "red", 3: "blue"})

    sheet = pixels(contact_sheet(run))

    assert sheet.size == (2 * (TILE + GAP) + GAP, 2 * (TILE + LINE + GAP) + GAP)
    middles = [
        sheet.getpixel((GAP + column * (TILE + GAP) + TILE // 2, GAP + row * (TILE + LINE + GAP) + TILE // 2))
        for row in range(2)
        for column in range(2)
    ]
    assert [max(color) - min(color) < 30 for color in middles] == [False, True, True, False]
    assert (middles[0][0] > 200, middles[3][2] > 200) == (True, True)


def test_is_drawn_once_as_long_as_nothing_changes(monkeypatch):
    run = make_run(["Ace", "Two"], made={0: "red"})
    drawn = []
    real = contact_sheets._draw
    monkeypatch.setattr(contact_sheets, "_draw", lambda *args: drawn.append(1) or real(*args))

    first, again = contact_sheet(run), contact_sheet(run)
    job = GenerationJob.objects.get(set_index=1)
    ImageFactory(source_kind=Image.SourceKind.GENERATION, source_id=job.pk)
    changed = contact_sheet(run)

    assert (first.etag, first.content) == (again.etag, again.content)
    assert changed.etag != first.etag
    assert len(drawn) == 2


def test_a_large_set_has_several_sheets(monkeypatch):
    monkeypatch.setattr(contact_sheets, "PICTURES", 2)
    run = make_run(["a", "b", "c"])

    assert [contact_sheet(run, page=page).pages for page in (1, 2)] == [2, 2]
    assert pixels(contact_sheet(run, page=2)).width < pixels(contact_sheet(run, page=1)).width
    for page in (0, 3):
        with pytest.raises(Invalid):
            contact_sheet(run, page=page)


def test_a_picture_whose_file_is_missing_is_a_grey_square():
    run = make_run(["a"], made={0: "red"})
    storage.delete(Image.objects.get().storage_name)

    assert max(pixels(contact_sheet(run)).getpixel((GAP + 64, GAP + 64))) < 230


def test_long_and_foreign_names_fit():
    make = make_run(["x" * 200, "愛", "", "é\n"])

    assert pixels(contact_sheet(make, file_format="webp")).width > 0


class TestApi:
    @pytest.fixture
    def staff(self):
        client = APIClient()
        client.force_authenticate(UserFactory(staff=True))
        return client

    def test_answers_with_a_picture_and_knows_it_again(self, staff):
        path = f"/api/set-runs/{make_run(['a'], made={0: 'red'}).pk}/contact-sheet"

        response = staff.get(path)

        assert (response.status_code, response["Content-Type"]) == (200, "image/png")
        assert (response["X-Sheets"], response["Cache-Control"]) == ("1", "private, no-cache")
        assert staff.get(path, headers={"If-None-Match": response["ETag"]}).status_code == 304
        assert staff.get(f"{path}?type=webp")["Content-Type"] == "image/webp"

    @pytest.mark.parametrize("query", ["page=0", "page=2", "page=x", "type=gif", "colour=red"])
    def test_refuses_what_there_is_not(self, staff, query):
        path = f"/api/set-runs/{make_run(['a']).pk}/contact-sheet"

        response = staff.get(f"{path}?{query}")

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == f"/{query.partition('=')[0]}"


@pytest.fixture
def fonts(monkeypatch):
    """Let a test say which fonts are looked for."""

    def use(*names):
        monkeypatch.setattr(contact_sheets, "FONTS", names)
        contact_sheets._font.cache_clear()
        return contact_sheets._font()

    yield use
    contact_sheets._font.cache_clear()


def shape(font, letter):
    return font.getmask(letter).size, bytes(font.getmask(letter))


def test_names_are_written_in_a_font_of_the_system_that_has_their_letters(fonts):
    font = fonts(*contact_sheets.FONTS)
    if font.getname()[0] == "Aileron":
        pytest.skip("no such font on this machine")

    box = shape(font, "\ufffe")
    assert box not in [shape(font, letter) for letter in "éłΩЖ♥…"]


def test_names_are_written_in_pillows_own_font_where_the_system_has_none(fonts):
    assert fonts("no such font.ttf").getname()[0] == "Aileron"
