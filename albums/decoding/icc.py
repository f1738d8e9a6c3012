"""Colour profiles without the people behind them.

Profiles name monitors by serial number, printers, dates and persons in their texts. What a picture needs of one
are the tags that turn numbers into colours: those are copied, each no longer than its type says, under a neutral
header and text.
"""

import struct

MAX_BYTES = 4 * 1024 * 1024
SPACES = frozenset({b"GRAY", b"RGB ", b"CMYK"})
"""The colour spaces of pictures."""

_CLASSES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
_HEADER_BYTES = 128
_MAX_TAGS = 100
_MATRIX = frozenset({b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt", b"bkpt"})
_CURVES = frozenset({b"rTRC", b"gTRC", b"bTRC", b"kTRC"})
_TABLES = frozenset({b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2", b"gamt"})
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
_NEUTRAL = b"colours"


def clean_profile(data: bytes) -> bytes | None:
    """Return a profile with its colours only, or None for one that no program could use."""
    if len(data) > MAX_BYTES:
        return None
    try:
        return _cleaned(data)
    except (struct.error, _Unusable):
        return None


class _Unusable(Exception):
    pass


def _cleaned(data: bytes) -> bytes:
    (count,) = struct.unpack_from(">I", data, _HEADER_BYTES)
    if data[36:40] != b"acsp" or data[12:16] not in _CLASSES or data[16:20] not in SPACES:
        raise _Unusable
    if not 0 < count <= _MAX_TAGS:
        raise _Unusable
    version = data[8]
    tags: dict[bytes, bytes] = {}
    for number in range(count):
        name, offset, length = struct.unpack_from(">4sII", data, _HEADER_BYTES + 4 + 12 * number)
        if offset < _HEADER_BYTES or offset + length > len(data):
            raise _Unusable
        body = _tag(name, data[offset : offset + length])
        if body is not None and name not in tags:
            tags[name] = body
    if not tags.keys() & (_CURVES | _TABLES):
        raise _Unusable
    tags[b"desc"] = _text(version)
    tags[b"cprt"] = _copyright(version)
    return _assembled(_header(data), tags)


def _header(data: bytes) -> bytes:
    """Return the header without date, makers, model and fingerprint."""
    header = bytearray(_HEADER_BYTES)
    header[8:24] = data[8:24]  # version, class, colour space, connection space
    header[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    header[36:40] = b"acsp"
    header[64:80] = data[64:80]  # intent and illuminant
    return bytes(header)


def _assembled(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile; tags with equal bodies share them, as profiles do with three equal curves."""
    table, bodies, places = bytearray(), bytearray(), dict[bytes, int]()
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    for name, body in tags.items():
        if body not in places:
            places[body] = start + len(bodies)
            bodies += body + b"\0" * (-len(body) % 4)
        table += struct.pack(">4sII", name, places[body], len(body))
    size = struct.pack(">I", start + len(bodies))
    return size + header[4:] + struct.pack(">I", len(tags)) + table + bodies


def _tag(name: bytes, body: bytes) -> bytes | None:
    """Return a colour tag cut to the length that its type says, or None for another one."""
    kind = body[:4]
    if name in _MATRIX and kind == b"XYZ ":
        return _first(body, 20)
    if name == b"chad" and kind == b"sf32":
        return _first(body, 8 + 9 * 4)
    if name == b"cicp" and kind == b"cicp":
        return _first(body, 12)
    if name in _CURVES and kind == b"curv":
        return _first(body, 12 + 2 * struct.unpack_from(">I", body, 8)[0])
    if name in _CURVES and kind == b"para":
        parameters = _PARAMETERS.get(struct.unpack_from(">H", body, 8)[0])
        return _first(body, 12 + 4 * parameters) if parameters else None
    if name in _TABLES and kind in (b"mft1", b"mft2"):
        return _first(body, _table_length(body))
    if name in _TABLES and kind in (b"mAB ", b"mBA "):
        return body
    return None


def _first(body: bytes, length: int) -> bytes:
    if len(body) < length:
        raise _Unusable
    return body[:4] + b"\0\0\0\0" + body[8:length]


def _table_length(body: bytes) -> int:
    inputs, outputs, points = body[8:11]
    if not (inputs <= 4 and outputs <= 4):
        raise _Unusable
    if body[:4] == b"mft1":
        return 48 + 256 * inputs + points**inputs * outputs + 256 * outputs
    entries, results = struct.unpack_from(">HH", body, 48)
    return 52 + 2 * (entries * inputs + points**inputs * outputs + results * outputs)


def _text(version: int) -> bytes:
    if version >= 4:
        return _localised()
    words = _NEUTRAL + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(4 + 4 + 2 + 1 + 67)


def _copyright(version: int) -> bytes:
    return _localised() if version >= 4 else b"text\0\0\0\0" + _NEUTRAL + b"\0"


def _localised() -> bytes:
    words = _NEUTRAL.decode().encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(words), 28) + words
