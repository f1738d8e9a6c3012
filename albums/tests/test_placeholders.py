import io

import blurhash
import PIL.Image
import pytest

from albums.placeholders import NOTHING_TO_SHOW, encode, placeholder_of
from albums.tests.factories import ImageFactory, picture

PUBLISHED = "LEHV6nWB2yk8pyo0adR*.7kCMdnj"
"""What the algorithm's own page shows as an example of the form."""


def average(placeholder):
    """Return the mean colour that a placeholder shows."""
    pixels = [pixel for row in blurhash.decode(placeholder, 8, 8) for pixel in row]
    return [sum(channel) / len(pixels) for channel in zip(*pixels, strict=True)]


def opened(**options):
    return PIL.Image.open(io.BytesIO(picture(**options)))


class TestEncode:
    def test_has_the_form_of_the_published_example(self):
        assert len(encode(opened(size=(300, 200)))) == len(PUBLISHED)

    @pytest.mark.parametrize("color", [(255, 0, 0), (0, 0, 255), (20, 120, 40)])
    def test_shows_the_colour_of_the_picture(self, color):
        assert average(encode(opened(color=color, size=(300, 200)))) == pytest.approx(color, abs=6)

    def test_shows_what_is_where(self):
        canvas = PIL.Image.new("RGB", (200, 100), "black")
        canvas.paste("white", (100, 0, 200, 100))

        rows = blurhash.decode(encode(canvas), 8, 8)

        assert rows[4][7][0] - rows[4][0][0] > 100

    def test_shows_grey_where_the_picture_can_be_seen_through(self):
        see_through = picture(mode="RGBA", color=(255, 0, 0, 0), size=(64, 64))

        assert average(encode(PIL.Image.open(io.BytesIO(see_through)))) == pytest.approx((128,) * 3, abs=6)

    @pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (5, 3)])
    def test_takes_every_shape(self, size):
        assert len(encode(opened(size=size))) == len(PUBLISHED)

    def test_is_never_what_stands_for_a_picture_that_cannot_be_read(self):
        assert encode(opened(color=(128, 128, 128))) != NOTHING_TO_SHOW
        assert average(NOTHING_TO_SHOW) == [128, 128, 128]


@pytest.mark.django_db
class TestPlaceholderOf:
    def test_is_made_from_the_stored_thumbnail(self, anywhere):
        image = ImageFactory(content=picture(color="blue", size=(400, 300)))

        assert average(placeholder_of(image)) == pytest.approx((0, 0, 255), abs=6)
