import io

import PIL.Image
import pytest

from scraping.crawler.assignment import Sizes
from scraping.crawler.pictures import Collection, Unwanted, examine, store
from scraping.tests.sites import drawing

SIZES = Sizes(min_side=32)


def reason(body, sizes=SIZES):
    with pytest.raises(Unwanted) as caught:
        examine(body, sizes)
    return caught.value.reason


class TestExamine:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_tells_what_a_file_is_by_its_bytes(self, kind):
        picture = examine(drawing(1, (240, 180), kind), SIZES)
        assert (picture.format, picture.width, picture.height) == (kind.lower(), 240, 180)

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", "not_a_picture"),
            (b"<!doctype html><p>gone</p>", "not_a_picture"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_a_picture"),
            (drawing(1, format="GIF"), "unsupported_format"),
            (b"\0\0\0\x1cftypavif" + bytes(64), "unsupported_format"),
            (drawing(1)[:100], "damaged"),
            (drawing(1)[:-200], "damaged"),
        ],
    )
    def test_takes_nothing_else(self, body, expected):
        assert reason(body) == expected

    def test_looks_at_the_header_before_any_pixel(self, monkeypatch):
        body = drawing(1, (400, 300))
        monkeypatch.setattr(PIL.Image, "open", lambda *arguments, **options: pytest.fail("It was decoded."))
        assert reason(body, Sizes(min_side=301)) == "too_small"
        assert reason(body, Sizes(min_side=1, max_side=399)) == "too_large"
        assert reason(body, Sizes(min_side=1, min_area=120_001)) == "too_small"
        assert reason(body, Sizes(min_side=1, max_area=119_999)) == "too_large"
        assert reason(body, Sizes(min_side=1, max_ratio=1.3)) == "bad_aspect_ratio"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_looks_at_pictures_upright(self, kind):
        upright, target = PIL.Image.open(io.BytesIO(drawing(1))), io.BytesIO()
        exif = PIL.Image.Exif()
        exif[0x0112] = 8
        upright.transpose(PIL.Image.Transpose.ROTATE_270).save(target, kind, exif=exif)

        assert examine(target.getvalue(), SIZES).fingerprint.resembles(examine(drawing(1), SIZES).fingerprint)

    def test_is_stored_whole_under_the_name_of_its_content(self, tmp_path):
        body = drawing(1)
        picture = examine(body, SIZES)
        folder = tmp_path / "pictures"
        folder.mkdir()
        assert store(body, picture, folder).read_bytes() == body
        assert [file.name for file in folder.iterdir()] == [f"{picture.sha256}.png"]


class TestCollection:
    def collect(self, *bodies, known=()):
        collection, judgements = Collection(known), []
        for body in bodies:
            picture = examine(body, SIZES)
            judgement = collection.judge(picture)
            judgements.append(judgement.reason or ("near" if judgement.near_duplicate_of else "new"))
            if not judgement.reason:
                collection.keep(picture.sha256, picture.fingerprint, picture.width * picture.height)
        return judgements

    def smaller(self, body, quality=60):
        target = io.BytesIO()
        PIL.Image.open(io.BytesIO(body)).resize((120, 90)).save(target, "JPEG", quality=quality)
        return target.getvalue()

    def test_the_same_bytes_are_kept_once(self):
        assert self.collect(drawing(1), drawing(2), drawing(1)) == ["new", "new", "same_bytes"]

    def test_what_is_known_is_not_kept(self):
        assert self.collect(drawing(1), known=[examine(drawing(1), SIZES).sha256]) == ["known"]

    def test_of_those_that_look_the_same_the_larger_is_kept(self):
        assert self.collect(drawing(1), self.smaller(drawing(1))) == ["new", "near_duplicate"]
        assert self.collect(self.smaller(drawing(1)), drawing(1)) == ["new", "near"]

    def test_a_thousand_others_do_not_look_the_same(self):
        assert set(self.collect(*(drawing(seed, (48, 36)) for seed in range(1000)))) == {"new"}
