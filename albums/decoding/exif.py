"""The one thing in EXIF data that a picture needs: which way is up."""

import struct

from PIL.Image import Transpose

UPRIGHT = 1
ORIENTATION = 0x0112
SHORT = 3
MAX_ENTRIES = 512

TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What sets a picture upright, by its orientation."""


def orientation_of(data: bytes) -> int:
    """Return the orientation, 1 to 8, that a block of EXIF data tells; 1 where it tells none.

    Only the first directory is read, and nothing in it but this entry.
    """
    tiff = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    try:
        magic, start = struct.unpack_from(f"{order}HI", tiff, 2) if order else (0, 0)
        if magic != 42:
            return UPRIGHT
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for number in range(min(entries, MAX_ENTRIES)):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * number)
            if tag == ORIENTATION:
                return value if kind == SHORT and count == 1 and 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT
