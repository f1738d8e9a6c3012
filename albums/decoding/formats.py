"""Which picture formats are taken, and whether all that speaks for one agrees."""

from albums.decoding.refusals import UnsupportedPicture

HEAD_BYTES = 12
"""So much of a file's beginning tells its format."""

ENDINGS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
CONTENT_TYPES = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
UNDECLARED = frozenset({"", "application/octet-stream"})


def format_of(head: bytes) -> str:
    """Return the format that the first bytes of a file show; empty for every other one."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return ""


def agree_on_format(head: bytes, *, name: str, content_type: str) -> str:
    """Return the format on which a file's name, its declared type and its first bytes agree.

    Raises:
        UnsupportedPicture: one of them names a format that is not taken, or they disagree.
    """
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    declared = content_type.partition(";")[0].strip().lower()
    found = format_of(head)
    if not found or ending not in ENDINGS or (declared not in CONTENT_TYPES and declared not in UNDECLARED):
        raise UnsupportedPicture("Only PNG, JPEG and WebP pictures are accepted.")
    if ENDINGS[ending] != found or CONTENT_TYPES.get(declared, found) != found:
        raise UnsupportedPicture(
            f"The bytes of the file are {found.upper()}, but its name or its declared type says otherwise.",
            code="type_mismatch",
        )
    return found
