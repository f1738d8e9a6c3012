from io import BytesIO
from uuid import uuid4

import PIL.Image
import pytest
from django.core.cache import cache

from albums import services, thumbnails
from albums.pictures import UnreadablePicture
from albums.tests.factories import ImageFactory, picture
from albums.thumbnails import default_size, render, thumbnail_name, thumbnail_of
from imagehub import storage
from imagehub.errors import ImageHubError, Invalid
from imagehub.tests.together import at_once


@pytest.fixture
def rendered(tmp_path):
    """Render a thumbnail of 150 pixels of some bytes."""

    def thumbnail(data):
        path = tmp_path / "picture"
        path.write_bytes(data)
        return PIL.Image.open(BytesIO(render(path, 150)))

    return thumbnail


class TestRender:
    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
    def test_fits_a_picture_into_the_square(self, rendered, file_format):
        thumbnail = rendered(picture(size=(600, 300), file_format=file_format))

        assert thumbnail.format == "WEBP"
        assert thumbnail.size == (150, 75)
        red, green, blue = thumbnail.convert("RGB").getpixel((75, 37))
        assert red > 240
        assert max(green, blue) < 15

    def test_never_makes_a_picture_larger(self, rendered):
        assert rendered(picture(size=(64, 32))).size == (64, 32)

    @pytest.mark.parametrize(
        ("mode", "color"), [("L", 200), ("LA", (200, 9)), ("P", 1), ("1", 1), ("RGBA", (200, 0, 0, 9))]
    )
    def test_takes_every_mode_of_png(self, rendered, mode, color):
        assert rendered(picture(mode=mode, color=color, size=(300, 300))).size == (150, 150)

    def test_keeps_the_brightness_of_sixteen_bits(self, rendered):
        thumbnail = rendered(picture(mode="I;16", color=32768, size=(300, 300)))

        assert abs(thumbnail.convert("L").getpixel((75, 75)) - 128) < 5

    def test_takes_print_colours(self, rendered):
        data = picture(mode="CMYK", color=(0, 255, 255, 0), size=(300, 300), file_format="JPEG")

        assert rendered(data).mode == "RGB"

    def test_keeps_what_can_be_seen_through(self, rendered):
        thumbnail = rendered(picture(mode="RGBA", color=(200, 0, 0, 0), size=(300, 300)))

        assert thumbnail.getpixel((75, 75))[3] == 0

    def test_stands_upright_and_says_nothing_of_the_camera(self, rendered):
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # turn right
        exif[0x010F] = "a camera"

        thumbnail = rendered(picture(size=(600, 300), file_format="JPEG", exif=exif))

        assert thumbnail.size == (75, 150)
        assert not dict(thumbnail.getexif())

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
    def test_refuses_a_picture_cut_in_half(self, rendered, file_format):
        data = picture(size=(600, 600), file_format=file_format)

        with pytest.raises(UnreadablePicture):
            rendered(data[: len(data) // 2])

    def test_refuses_other_formats(self, rendered):
        with pytest.raises(UnreadablePicture):
            rendered(picture(file_format="GIF"))


def damaged():
    """Return a picture cut in half, whose bytes nobody has seen before: damage is remembered."""
    return picture(size=(600, 600))[:400] + uuid4().bytes


def hit_at_once(image, hits=50):
    """Ask for a thumbnail from many threads at the same moment; return what each was answered."""

    def hit(_):
        try:
            return thumbnail_of(image, 150)
        except ImageHubError as error:
            return type(error)

    return set(at_once(hit, range(hits)))


@pytest.fixture
def renders(monkeypatch):
    """Count what is rendered."""
    made = []

    def counted(path, size):
        made.append(size)
        return render(path, size)

    monkeypatch.setattr(thumbnails, "render", counted)
    return made


@pytest.mark.django_db
class TestThumbnailOf:
    def test_is_made_once_and_named_by_content(self, anywhere, renders):
        image = ImageFactory()

        name = thumbnail_of(image, 150)

        assert name == f"thumbnails/150/{image.sha256[:2]}/{image.sha256}.webp"
        assert thumbnail_of(image, 150) == name
        assert renders == [150]
        with storage.open_file(name) as file:
            assert PIL.Image.open(file).format == "WEBP"

    def test_is_made_once_for_fifty_who_ask_at_the_same_moment(self, anywhere, renders):
        image = ImageFactory(content=picture(size=(600, 600)))

        assert hit_at_once(image) == {thumbnail_name(image.sha256, 150)}
        assert renders == [150]

    def test_of_a_damaged_picture_is_tried_once_for_fifty_who_ask(self, renders):
        image = ImageFactory(content=damaged())

        assert hit_at_once(image) == {UnreadablePicture}
        assert renders == [150]

    def test_is_tried_again_when_the_damage_may_have_been_repaired(self, renders):
        image = ImageFactory(content=damaged())
        hit_at_once(image, hits=2)
        cache.clear()

        hit_at_once(image, hits=2)

        assert len(renders) == 2

    @pytest.mark.parametrize("size", [151, 0, -1, 99_999, *range(2, 100, 7)])
    def test_refuses_a_size_that_does_not_exist_and_writes_nothing(self, size):
        with pytest.raises(Invalid, match="150, 300, 600") as error:
            thumbnail_of(ImageFactory(), size)

        assert error.value.pointer == "/size"
        assert list(storage.walk("thumbnails")) == []

    def test_follows_the_configuration(self, set_config):
        set_config("storage: {minimum_free_bytes: 0, thumbnail_sizes: [64]}")

        assert storage.exists(thumbnail_of(ImageFactory(), 64))
        assert default_size() == 64

    def test_says_so_when_the_picture_is_gone(self, anywhere):
        image = ImageFactory()
        storage.delete(image.storage_name)

        with pytest.raises(services.ImageFileMissing):
            thumbnail_of(image, 150)

    def test_leaves_nothing_behind_when_the_picture_is_damaged(self):
        image = ImageFactory(content=damaged())

        with pytest.raises(UnreadablePicture):
            thumbnail_of(image, 150)

        assert list(storage.walk("thumbnails")) == []
