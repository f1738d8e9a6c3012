"""Pictures that lie on their side are kept upright: what they told of it is gone with the rest of their EXIF data."""

import PIL.Image
import pytest

from albums.tests.decoding.samples import drawing, opened, saved
from albums.tests.decoding.test_vet import FORMATS

_BACK = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}
"""What turns an upright picture into one that its orientation turns back."""


def _exif(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def _difference(one, other) -> float:
    """Return the mean difference of two pictures, of 255."""
    pairs = zip(one.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / len(one.convert("RGB").tobytes())


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", FORMATS)
    def test_is_applied_to_the_pixels(self, take, file_format, orientation):
        upright = drawing(90, 60)
        turned = upright.transpose(_BACK[orientation]) if orientation > 1 else upright
        options = (
            {"lossless": True} if file_format == "WEBP" else {"quality": 95} if file_format == "JPEG" else {}
        )
        data = saved(turned, file_format, exif=_exif(orientation), **options)

        kept = take(data, thumbnail_size=45)

        assert (kept.width, kept.height) == (90, 60)
        picture = opened(kept.path.read_bytes())
        assert picture.size == (90, 60)
        assert not dict(picture.getexif())
        assert _difference(picture, upright) < 4
        assert _difference(opened(kept.thumbnail.read_bytes()), upright.resize((45, 30))) < 12

    def test_keeps_how_coarse_the_colours_are(self, take):
        data = saved(drawing(), "JPEG", exif=_exif(6), subsampling=0)

        assert [part[1:3] for part in opened(take(data).path.read_bytes()).layer] == [(1, 1)] * 3

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_keeps_grey_and_print_colours(self, take, mode):
        data = saved(drawing(mode=mode), "JPEG", exif=_exif(3), quality=95)

        kept = opened(take(data).path.read_bytes())

        assert kept.mode == mode
        assert _difference(kept.convert("RGB"), opened(data).convert("RGB").rotate(180)) < 4

    def test_keeps_sixteen_bits(self, take):
        data = saved(PIL.Image.new("I;16", (40, 20), 12_345), "PNG", exif=_exif(8))

        kept = opened(take(data).path.read_bytes())

        assert kept.mode == "I;16"
        assert kept.size == (20, 40)
        assert kept.getpixel((3, 3)) == 12_345
