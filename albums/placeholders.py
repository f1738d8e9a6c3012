"""Placeholders: what to show until a picture is there, as a BlurHash of 28 characters.

The algorithm: https://github.com/woltapp/blurhash/blob/master/Algorithm.md
"""

import blurhash
import PIL.Image

from albums.models import Image
from albums.pictures import DECODERS
from albums.thumbnails import smallest_size, thumbnail_of
from imagehub import storage

COMPONENTS_X, COMPONENTS_Y = 4, 3
SIDE = 24
"""Pixels that are looked at, at most, in each direction. More would cost time and change nothing that can be seen."""

BACKGROUND = (128, 128, 128)
"""Behind what can be seen through: the page may be light or dark."""

NOTHING_TO_SHOW = "00Eyb["
"""Plain grey, for a picture that cannot be read. No other placeholder is as short."""


def placeholder_of(image: Image) -> str:
    """Return the placeholder of an image, from its smallest thumbnail, which is rendered where it is missing.

    Raises:
        ImageFileMissing, StillBusy, StorageFull, UnreadablePicture: see :func:`albums.thumbnails.thumbnail_of`.
    """
    with (
        storage.open_file(thumbnail_of(image, smallest_size())) as file,
        PIL.Image.open(file, formats=DECODERS) as thumbnail,
    ):
        return encode(thumbnail)


def encode(picture: PIL.Image.Image) -> str:
    """Return the BlurHash of a picture."""
    small = picture.convert("RGBA")
    small.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BOX)
    ground = PIL.Image.new("RGB", small.size, BACKGROUND)
    ground.paste(small, mask=small)
    width, height = ground.size
    data = ground.tobytes()
    pixels = [data[start : start + 3] for start in range(0, len(data), 3)]
    rows = [pixels[y * width : (y + 1) * width] for y in range(height)]
    return str(blurhash.encode(rows, COMPONENTS_X, COMPONENTS_Y))
