"""Pictures as strangers send them, made by code: harmless, careless and hostile ones."""

import gzip
import io
import struct
import zipfile
import zlib

import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin

from albums.decoding.png import SIGNATURE

SECRET = b"Anna Example, 12 Garden Street"
"""Stands for whatever a file tells of its maker; must be found in no result."""

SERIAL = b"SN-0815-4711"
SCRIPT = b"<script>alert(1)</script>"


def drawing(width=60, height=40, mode="RGB") -> PIL.Image.Image:
    """Return a picture of which every corner and every turn looks different."""
    across = PIL.Image.linear_gradient("L").rotate(90).resize((width, height))
    down = PIL.Image.linear_gradient("L").resize((width, height))
    corner = PIL.Image.radial_gradient("L").resize((2 * width, 2 * height)).crop((0, 0, width, height))
    picture = PIL.Image.merge("RGB", (across, down, corner))
    if mode in ("RGBA", "LA"):
        picture.putalpha(down)
    return picture if picture.mode == mode else picture.convert(mode)


def saved(picture: PIL.Image.Image, file_format: str, **options) -> bytes:
    target = io.BytesIO()
    picture.save(target, file_format, **options)
    return target.getvalue()


def animation(file_format: str, frames=3, size=(48, 32), **options) -> bytes:
    """Return an animation as PNG or WebP, no two frames alike."""
    pictures = [drawing(*size).rotate(30 * number) for number in range(frames)]
    return saved(
        pictures[0], file_format, save_all=True, append_images=pictures[1:], duration=50, loop=0, **options
    )


def opened(data: bytes) -> PIL.Image.Image:
    picture = PIL.Image.open(io.BytesIO(data))
    picture.load()
    return picture


# PNG, piece by piece


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth=8, colour=2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def black_png(width: int, height: int) -> bytes:
    """Return a PNG with one bit a pixel: a thousand times smaller than what it unfolds to."""
    rows = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    packed = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    return SIGNATURE + png_header(width, height, 1, 0) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def header_only_png(side=65_500) -> bytes:
    return SIGNATURE + png_header(side, side) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def long_animation(
    width: int, height: int, frames: int, *, declared: int | None = None, depth=1, colour=0
) -> bytes:
    """Return an animated PNG of black frames that takes far longer to decode than to send."""
    bits = depth * {0: 1, 2: 3, 6: 4}[colour]
    packed = zlib.compress(bytes((1 + (width * bits + 7) // 8) * height), 9)
    parts = [SIGNATURE, png_header(width, height, depth, colour)]
    parts.append(chunk(b"acTL", struct.pack(">II", frames if declared is None else declared, 0)))
    sequence = 0
    for number in range(frames):
        control = struct.pack(">IIIIIHHBB", sequence, width, height, 0, 0, 1, 10, 0, 0)
        parts.append(chunk(b"fcTL", control))
        sequence += 1
        if number == 0:
            parts.append(chunk(b"IDAT", packed))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", sequence) + packed))
            sequence += 1
    return b"".join([*parts, chunk(b"IEND", b"")])


def with_chunks(png: bytes, *pieces: bytes, end=b"") -> bytes:
    """Return a PNG with more behind its header, and something behind its end."""
    start = len(SIGNATURE) + 25
    return png[:start] + b"".join(pieces) + png[start:] + end


def metadata_bomb(kind: bytes, megabytes=20) -> bytes:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()
    body = {
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"Comment\0\1\0\0\0" + packed,
        b"iCCP": b"profile\0\0" + packed,
    }[kind]
    return with_chunks(saved(drawing(), "PNG"), chunk(kind, body))


def telling_png(picture: PIL.Image.Image | None = None) -> bytes:
    """Return a PNG that tells who made it, in every place there is, and a script besides."""
    return with_chunks(
        saved(picture or drawing(), "PNG", dpi=(72, 72)),
        chunk(b"gAMA", struct.pack(">I", 45455)),
        chunk(b"tEXt", b"parameters\0</textarea>" + SCRIPT + SECRET),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(SECRET)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SECRET),
        chunk(b"eXIf", exif()[6:]),
        chunk(b"tIME", struct.pack(">HBBBBB", 2026, 3, 31, 10, 15, 0)),
        chunk(b"prVt", SERIAL),
        end=SCRIPT + SECRET,
    )


# EXIF and colour profiles


def exif(orientation: int | None = None) -> bytes:
    """Return EXIF data with a name, a serial number, a place and a thumbnail in it."""
    data = PIL.Image.Exif()
    if orientation:
        data[0x0112] = orientation
    data[0x010E] = '"><script>' + SECRET.decode()
    data[0x010F] = "ACME"
    data[0x8298] = SECRET.decode()
    data.get_ifd(0x8769)[0xA431] = SERIAL.decode()
    data.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return data.tobytes() + saved(drawing(16, 16), "JPEG") + SECRET


def profile(space="RGB ") -> bytes:
    """Return a profile of a monitor that names its owner and its serial number."""
    plain = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    tags = dict(profile_tags(plain))
    tags[b"desc"] = (
        b"desc\0\0\0\0" + struct.pack(">I", len(SECRET) + 1) + SECRET + bytes(1 + 4 + 4 + 2 + 1 + 67)
    )
    tags[b"cprt"] = b"text\0\0\0\0" + SECRET + b"\0"
    tags[b"mmod"] = b"mmod\0\0\0\0" + SERIAL + bytes(20)
    tags[b"dmnd"] = tags[b"dmdd"] = tags[b"desc"]
    tags[b"rXYZ"] += SERIAL
    header = bytearray(plain[:128])
    header[80:84] = SERIAL[:4]
    header[84:96] = SERIAL
    header[16:20] = space.encode()
    table, bodies = b"", b""
    start = 132 + 12 * len(tags)
    for name, body in tags.items():
        table += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    return struct.pack(">I", start + len(bodies)) + header[4:] + struct.pack(">I", len(tags)) + table + bodies


def profile_tags(data: bytes):
    """Yield the names and bodies of a profile's tags."""
    (count,) = struct.unpack_from(">I", data, 128)
    for number in range(count):
        name, offset, length = struct.unpack_from(">4sII", data, 132 + 12 * number)
        yield name, data[offset : offset + length]


# JPEG and WebP


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def telling_jpeg(picture: PIL.Image.Image | None = None, *, orientation=None, **options) -> bytes:
    """Return a JPEG that tells who made it, in every place there is, and a script besides."""
    jpeg = saved(picture or drawing(), "JPEG", **options)
    jfif_with_thumbnail = b"JFIF\0\1\1\1\0\x48\0\x48\2\5" + SECRET  # thirty bytes are two by five pixels
    start = 20 if jpeg[6:10] == b"JFIF" else 2
    return (
        b"\xff\xd8"
        + (segment(0xE0, jfif_with_thumbnail) if start == 20 else b"")
        + segment(0xE0, b"JFXX\0\x10" + saved(drawing(16, 16), "JPEG") + SECRET)
        + segment(0xE1, exif(orientation))
        + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + SECRET)
        + segment(0xE2, b"MPF\0" + SECRET)
        + segment(0xED, b"Photoshop 3.0\x008BIM" + SECRET)
        + segment(0xFE, b"<?php system($_GET[0]); ?>" + SECRET)
        + jpeg[start:]
        + SCRIPT
        + SECRET
    )


def riff(*parts: bytes) -> bytes:
    content = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def telling_webp(data: bytes | None = None, *, orientation=None, **options) -> bytes:
    """Return a WebP file that tells who made it, in every place there is, and a script besides."""
    data = data or saved(drawing(), "WEBP", exif=exif(orientation), xmp=SECRET, **options)
    content = data[12:] + riff_chunk(b"ABCD", SECRET)
    return riff(content) + SCRIPT + SECRET


def camera_pair() -> bytes:
    """Return an MPO file: one JPEG with another one behind it, as phones make them."""
    return saved(drawing(), "MPO", save_all=True, append_images=[drawing().rotate(90)])


# What is no picture of ours


def zipped(data=b"a virus") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.class", data)
    return target.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><rect width="9" height="9"/></svg>'

FOREIGN = {
    "gif": saved(drawing(mode="P"), "GIF"),
    "gif_script": b"GIF89a/*...*/=1;alert(1)//",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "avif": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(64),
    "zip": zipped(),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\nshowpage\n%%EOF\n",
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(64),
    "fits": gzip.compress(b"SIMPLE  =                    T".ljust(2880)),
    "fits_plain": b"SIMPLE  =                    T".ljust(2880),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
    "mcidas": b"\0\0\0\0\0\0\0\4" + bytes(248),
    "dds": b"DDS \x7c\0\0\0" + bytes(120),
    "svg": SVG,
    "svgz": gzip.compress(SVG),
    "tiff": saved(drawing(), "TIFF"),
    "bmp": saved(drawing(), "BMP"),
    "ico": saved(drawing(), "ICO"),
    "pdf": b"%PDF-1.7\n" + bytes(64),
    "html": b"<!doctype html>" + SCRIPT,
    "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(32),
    "short": b"\x89PN",
    "zeros": bytes(100),
}
"""Bytes of other kinds, which come under the names of ours."""
