from io import BytesIO

import PIL.Image
import pytest

from albums import services
from albums.pictures import UnreadablePicture
from albums.tests.factories import ImageFactory, picture
from albums.thumbnails import default_size, render, thumbnail_path
from imagehub import storage
from imagehub.errors import Invalid


@pytest.fixture
def thumbnail_of(tmp_path):
    """Render a thumbnail of 150 pixels of some bytes."""

    def thumbnail(data):
        path = tmp_path / "picture"
        path.write_bytes(data)
        return PIL.Image.open(BytesIO(render(path, 150)))

    return thumbnail


class TestRender:
    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
    def test_fits_a_picture_into_the_square(self, thumbnail_of, file_format):
        thumbnail = thumbnail_of(picture(size=(600, 300), file_format=file_format))

        assert thumbnail.format == "WEBP"
        assert thumbnail.size == (150, 75)
        red, green, blue = thumbnail.convert("RGB").getpixel((75, 37))
        assert red > 240
        assert max(green, blue) < 15

    def test_never_makes_a_picture_larger(self, thumbnail_of):
        assert thumbnail_of(picture(size=(64, 32))).size == (64, 32)

    @pytest.mark.parametrize(
        ("mode", "color"), [("L", 200), ("LA", (200, 9)), ("P", 1), ("1", 1), ("RGBA", (200, 0, 0, 9))]
    )
    def test_takes_every_mode_of_png(self, thumbnail_of, mode, color):
        assert thumbnail_of(picture(mode=mode, color=color, size=(300, 300))).size == (150, 150)

    def test_keeps_the_brightness_of_sixteen_bits(self, thumbnail_of):
        thumbnail = thumbnail_of(picture(mode="I;16", color=32768, size=(300, 300)))

        assert abs(thumbnail.convert("L").getpixel((75, 75)) - 128) < 5

    def test_takes_print_colours(self, thumbnail_of):
        data = picture(mode="CMYK", color=(0, 255, 255, 0), size=(300, 300), file_format="JPEG")

        assert thumbnail_of(data).mode == "RGB"

    def test_keeps_what_can_be_seen_through(self, thumbnail_of):
        thumbnail = thumbnail_of(picture(mode="RGBA", color=(200, 0, 0, 0), size=(300, 300)))

        assert thumbnail.getpixel((75, 75))[3] == 0

    def test_stands_upright_and_says_nothing_of_the_camera(self, thumbnail_of):
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # turn right
        exif[0x010F] = "a camera"

        thumbnail = thumbnail_of(picture(size=(600, 300), file_format="JPEG", exif=exif))

        assert thumbnail.size == (75, 150)
        assert not dict(thumbnail.getexif())

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
    def test_refuses_a_picture_cut_in_half(self, thumbnail_of, file_format):
        data = picture(size=(600, 600), file_format=file_format)

        with pytest.raises(UnreadablePicture):
            thumbnail_of(data[: len(data) // 2])

    def test_refuses_other_formats(self, thumbnail_of):
        with pytest.raises(UnreadablePicture):
            thumbnail_of(picture(file_format="GIF"))


@pytest.mark.django_db
class TestThumbnailPath:
    def test_is_made_once_and_named_by_content(self):
        image = ImageFactory()

        path = thumbnail_path(image, 150)
        made = path.stat()

        assert path == storage.path_of(f"thumbnails/150/{image.sha256[:2]}/{image.sha256}.webp")
        assert thumbnail_path(image, 150).stat() == made

    def test_refuses_a_size_that_does_not_exist(self):
        with pytest.raises(Invalid, match="150, 300, 600") as error:
            thumbnail_path(ImageFactory(), 151)

        assert error.value.pointer == "/size"

    def test_follows_the_configuration(self, set_config):
        set_config("storage: {minimum_free_bytes: 0, thumbnail_sizes: [64]}")

        assert thumbnail_path(ImageFactory(), 64).is_file()
        assert default_size() == 64

    def test_says_so_when_the_picture_is_gone(self):
        image = ImageFactory()
        storage.delete(image.storage_name)

        with pytest.raises(services.ImageFileMissing):
            thumbnail_path(image, 150)

    def test_leaves_nothing_behind_when_the_picture_is_damaged(self):
        image = ImageFactory(content=picture(size=(600, 600))[:400])

        with pytest.raises(UnreadablePicture):
            thumbnail_path(image, 150)

        assert list(storage.walk("thumbnails")) == []
