"""Reading picture files: only the formats we keep, and nothing of a size that could hurt."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from imagehub.errors import NotReady

DECODERS = ("PNG", "JPEG", "WEBP")
FORMATS = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}  # MPO: a JPEG with more behind it
MAX_PIXELS = 80_000_000  # below the number at which Pillow begins to warn


class UnreadablePicture(NotReady):
    code = "unreadable_picture"
    title = "The file is not a picture that can be read"


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture say about it."""

    width: int
    height: int
    format: str


@contextmanager
def open_picture(path: Path) -> Iterator[PIL.Image.Image]:
    """Open a picture; damage that shows only while it is decoded inside the block gets its name too.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadablePicture: it is no PNG, JPEG or WebP file, or is damaged, or has too many pixels.
    """
    with path.open("rb") as file:
        try:
            with PIL.Image.open(file, formats=DECODERS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise UnreadablePicture(f"The picture has more than {MAX_PIXELS:,} pixels.")
                yield picture
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
            raise UnreadablePicture(f"The picture has more than {MAX_PIXELS:,} pixels.") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadablePicture("The file is no PNG, JPEG or WebP picture, or it is damaged.") from error


def read_header(path: Path) -> Header:
    """Return the size and format of a picture, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadablePicture: see :func:`open_picture`.
    """
    with open_picture(path) as picture:
        return Header(picture.width, picture.height, FORMATS[picture.format or ""])
