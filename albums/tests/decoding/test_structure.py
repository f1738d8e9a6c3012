"""The parsers by themselves: what they take out, what they refuse, and that no file makes them slow."""

import io
import struct
import time
import zlib

import PIL.ImageCms
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albums.decoding import ImpossiblePicture, PictureRefused, jpeg, png, webp
from albums.decoding.exif import orientation_of
from albums.decoding.icc import clean_profile
from albums.decoding.outline import Outline, read_outline
from albums.tests.decoding import samples
from albums.tests.decoding.samples import (
    SECRET,
    SERIAL,
    chunk,
    drawing,
    opened,
    riff,
    riff_chunk,
    saved,
    segment,
)

PIXEL = riff_chunk(b"VP8L", b"\x2f" + bytes(9))
PARSERS = {"png": png, "jpeg": jpeg, "webp": webp}


def kinds_of_png(data):
    return [piece.kind for piece in png.chunks(io.BytesIO(data))]


def markers_of_jpeg(data):
    return [piece.marker for piece in jpeg.segments(io.BytesIO(data))]


class TestPng:
    def test_keeps_only_what_a_picture_needs(self):
        data = samples.telling_png()
        assert {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"prVt"} <= set(kinds_of_png(data))

        clean, _ = png.clean(data)

        assert kinds_of_png(clean) == [b"IHDR", b"gAMA", b"pHYs", b"IDAT", b"IEND"]
        assert clean.endswith(b"IEND\xaeB`\x82")

    def test_refuses_an_end_with_something_in_it(self):
        whole, _ = png.clean(samples.telling_png())
        data = whole.removesuffix(chunk(b"IEND", b"")) + chunk(b"IEND", b"GPS 52.1 13.4")

        with pytest.raises(ImpossiblePicture, match="end"):
            png.clean(data)

    def test_keeps_each_colour_chunk_once_and_at_its_length(self):
        gamma = chunk(b"gAMA", struct.pack(">I", 45455))
        data = samples.with_chunks(saved(drawing(), "PNG"), gamma, gamma, chunk(b"sRGB", b"\0" + SECRET))

        assert kinds_of_png(png.clean(data)[0]) == [b"IHDR", b"gAMA", b"IDAT", b"IEND"]

    def test_a_still_picture_keeps_no_frames(self):
        frame = chunk(b"fdAT", struct.pack(">I", 0) + SECRET)
        data = samples.with_chunks(saved(drawing(), "PNG"), frame)

        assert kinds_of_png(png.clean(data)[0]) == [b"IHDR", b"IDAT", b"IEND"]

    def test_a_profile_that_no_program_could_use_is_dropped(self):
        for body in (SECRET, b"p\0\0" + SECRET, b"p\0\0" + zlib.compress(SECRET * 10)):
            data = samples.with_chunks(saved(drawing(), "PNG"), chunk(b"iCCP", body))
            assert kinds_of_png(png.clean(data)[0]) == [b"IHDR", b"IDAT", b"IEND"]

    @pytest.mark.parametrize(
        "piece",
        [chunk(b"CgBI", bytes(4)), chunk(b"ABCD", b""), chunk(b"a\0b\xff", b""), samples.png_header(9, 9)],
        ids=["apple", "critical", "no letters", "second header"],
    )
    def test_refuses_parts_that_no_program_knows(self, piece):
        data = samples.with_chunks(saved(drawing(), "PNG"), piece)

        with pytest.raises(ImpossiblePicture):
            png.outline(io.BytesIO(data))
            png.clean(data)

    @pytest.mark.parametrize(("depth", "colour"), [(3, 2), (16, 3), (8, 5), (0, 0)])
    def test_refuses_headers_that_make_no_sense(self, depth, colour):
        header = samples.png_header(9, 9, depth, colour)

        with pytest.raises(ImpossiblePicture):
            png.outline(io.BytesIO(samples.SIGNATURE + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")))

    def test_refuses_another_number_of_frames_than_declared(self):
        with pytest.raises(ImpossiblePicture, match="declares"):
            png.outline(io.BytesIO(samples.long_animation(8, 8, 3, declared=4)))

    def test_refuses_frames_outside_of_the_picture(self):
        data = samples.long_animation(8, 8, 2).replace(
            struct.pack(">IIIII", 1, 8, 8, 0, 0), struct.pack(">IIIII", 1, 8, 8, 1, 0)
        )

        with pytest.raises(ImpossiblePicture, match="outside"):
            png.outline(io.BytesIO(data))


class TestJpeg:
    def test_keeps_only_what_a_picture_needs(self):
        data = samples.telling_jpeg()
        assert {0xE1, 0xE2, 0xED, 0xFE} <= set(markers_of_jpeg(data))

        clean, _ = jpeg.clean(data)

        assert set(markers_of_jpeg(clean)) == {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}
        assert clean.count(b"JFIF") == 1
        assert b"JFXX" not in clean
        assert clean.endswith(b"\xff\xd9")

    def test_keeps_what_tells_the_meaning_of_colours(self):
        data = saved(drawing(mode="CMYK"), "JPEG", icc_profile=samples.profile())

        clean, _ = jpeg.clean(data)

        assert {0xE2, 0xEE} <= set(markers_of_jpeg(clean))
        assert b"Adobe\0\x64" in clean

    def test_a_profile_in_many_pieces_comes_out_whole(self):
        whole = samples.profile()
        pieces = [whole[i : i + 300] for i in range(0, len(whole), 300)]
        segments = b"".join(
            segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(pieces)]) + piece)
            for number, piece in reversed(list(enumerate(pieces, start=1)))
        )
        data = saved(drawing(), "JPEG")

        clean, _ = jpeg.clean(data[:20] + segments + data[20:])

        assert opened(clean).info["icc_profile"] == clean_profile(whole)

    def test_nothing_hides_between_the_scans_of_a_progressive_picture(self):
        data = saved(drawing(300, 200), "JPEG", progressive=True)
        second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
        told = data[:second] + segment(0xFE, SECRET) + segment(0xE1, b"Exif\0\0" + SECRET) + data[second:]

        clean, _ = jpeg.clean(told)

        assert clean == data

    @pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC9, 0xCF])
    def test_refuses_kinds_that_few_programs_show(self, marker):
        data = saved(drawing(), "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]))

        with pytest.raises(ImpossiblePicture):
            jpeg.outline(io.BytesIO(data))

    def test_refuses_a_picture_without_an_end(self):
        with pytest.raises(ImpossiblePicture):
            jpeg.clean(saved(drawing(), "JPEG")[:-2])

    def test_refuses_a_picture_of_countless_scans(self):
        data = saved(drawing(), "JPEG")
        scan = data[data.index(b"\xff\xda") : -2]

        with pytest.raises(ImpossiblePicture) as error:
            jpeg.clean(data[:-2] + scan * 200 + b"\xff\xd9")

        assert error.value.code == "too_many_scans"


class TestWebp:
    def test_keeps_only_what_a_picture_needs(self):
        data = samples.telling_webp(orientation=6, icc_profile=samples.profile())
        clean, orientation = webp.clean(data)

        assert [part.kind for part in webp.chunks(io.BytesIO(clean))] == [b"VP8X", b"ICCP", b"VP8 "]
        assert clean[20] == webp.HAS_PROFILE
        assert orientation == 6
        assert len(clean) == 8 + struct.unpack_from("<I", clean, 4)[0]

    def test_nothing_hides_in_the_frames_of_an_animation(self):
        data = samples.animation("WEBP")
        parts = [(p.kind, data[p.offset : p.offset + p.length]) for p in webp.chunks(io.BytesIO(data))]
        told = riff(
            *(riff_chunk(k, b + riff_chunk(b"ABCD", SECRET) if k == b"ANMF" else b) for k, b in parts),
            riff_chunk(b"VP8 ", SECRET),
        )
        assert SECRET in told

        assert webp.clean(told)[0] == webp.clean(data)[0]

    def test_refuses_a_canvas_that_hides_the_size_of_its_picture(self):
        data = bytearray(samples.telling_webp(saved(drawing(300, 200), "WEBP", exif=samples.exif())))
        data[24:30] = b"\x07\0\0\x07\0\0"

        with pytest.raises(ImpossiblePicture, match="disagree"):
            webp.outline(io.BytesIO(bytes(data)))


class TestSpeed:
    """Whatever the file: looking at it in the web process takes no time worth mentioning."""

    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            ("png", samples.SIGNATURE + samples.png_header(9, 9) + chunk(b"tEXt", b"") * 1_500_000),
            ("jpeg", b"\xff\xd8" + segment(0xFE, b"") * 4_000_000),
            ("jpeg", b"\xff\xd8" + b"\xff" * 16_000_000),
            ("webp", riff(riff_chunk(b"VP8X", b"\2" + bytes(9)), riff_chunk(b"ANMF", bytes(16)) * 500_000)),
            (
                "webp",
                riff(
                    riff_chunk(b"VP8X", b"\2" + bytes(9)),
                    riff_chunk(b"ANIM", bytes(6)),
                    riff_chunk(b"ANMF", bytes(16) + PIXEL + riff_chunk(b"ABCD", b"") * 1000) * 1000,
                ),
            ),
        ],
        ids=["chunks", "segments", "filling", "frames", "parts of frames"],
    )
    def test_countless_pieces_are_refused_at_once(self, kind, data):
        file = io.BytesIO(data)
        before = time.thread_time()

        with pytest.raises(ImpossiblePicture):
            read_outline(file, kind)

        assert time.thread_time() - before < 0.2

    def test_pixels_that_look_like_filling_take_linear_time(self):
        data = saved(drawing(), "JPEG")
        before = time.thread_time()

        jpeg.clean(data[:-2] + b"\xff" * 8_000_000 + b"\0" * 8 + b"\xff\xd9")

        assert time.thread_time() - before < 2


class TestOrientation:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
    def test_is_read_in_both_byte_orders(self, order, prefix):
        entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 7, 0)
        tiff = struct.pack(f"{order}HIH", 42, 8, 1)

        assert orientation_of(prefix + (b"II" if order == "<" else b"MM") + tiff + entry) == 7

    @pytest.mark.parametrize("value", [0, 9, 65_535])
    def test_is_upright_when_it_makes_no_sense(self, value):
        entry = struct.pack("<HHIHH", 0x0112, 3, 1, value, 0)

        assert orientation_of(b"II" + struct.pack("<HIH", 42, 8, 1) + entry) == 1

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_never_fails(self, data):
        assert orientation_of(b"II*\0" + data) in range(1, 9)


class TestProfile:
    def test_means_the_same_colours_as_before(self):
        swatches = drawing(64, 64)
        converted = []
        for data in (samples.profile(), clean_profile(samples.profile())):
            source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(data))
            target = PIL.ImageCms.createProfile("LAB")
            transform = PIL.ImageCms.buildTransform(source, target, "RGB", "LAB")
            converted.append(PIL.ImageCms.applyTransform(swatches, transform).tobytes())

        assert converted[0] == converted[1]

    def test_names_nobody(self):
        data = samples.profile()
        assert SECRET in data
        assert SERIAL in data

        clean = clean_profile(data)

        assert SECRET not in clean
        assert SERIAL[:4] not in clean
        assert PIL.ImageCms.getProfileDescription(io.BytesIO(clean)).strip() == "colours"
        assert not dict(samples.profile_tags(clean)).keys() & {b"mmod", b"dmnd", b"dmdd", b"vcgt"}

    def test_old_profiles_get_texts_of_their_own_kind(self):
        data = bytearray(samples.profile())
        data[8] = 2

        clean = clean_profile(bytes(data))

        assert dict(samples.profile_tags(clean))[b"desc"].startswith(b"desc\0\0\0\0\0\0\0\x08colours\0")
        assert PIL.ImageCms.getProfileDescription(io.BytesIO(clean)).strip() == "colours"

    def test_cleaning_twice_changes_nothing_more(self):
        once = clean_profile(samples.profile())

        assert clean_profile(once) == once

    @pytest.mark.parametrize(
        "data",
        [b"", SECRET, bytes(5000), samples.profile()[:200], samples.profile("LAB ")],
        ids=["empty", "text", "zeros", "cut off", "no colours of pictures"],
    )
    def test_is_none_when_no_program_could_use_it(self, data):
        assert clean_profile(data) is None

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def test_never_fails(self, data):
        clean_profile(mutated(samples.profile(), data))


ORIGINALS = [
    samples.telling_png(),
    samples.telling_jpeg(orientation=6, progressive=True),
    samples.telling_webp(icc_profile=samples.profile()),
    samples.animation("PNG"),
    samples.animation("WEBP"),
    saved(drawing(mode="P"), "PNG", icc_profile=samples.profile()),
    saved(drawing(mode="CMYK"), "JPEG", icc_profile=samples.profile()),
    saved(drawing(mode="RGBA"), "WEBP", lossless=True),
]


def mutated(original: bytes, data) -> bytes:
    """Return bytes with a few of them changed, left out, doubled or replaced by large numbers."""
    changed = bytearray(original)
    places = st.integers(0, len(original) - 1)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(places)
        match data.draw(st.integers(0, 4)):
            case 0:
                changed[at : at + 1] = data.draw(st.binary(min_size=1, max_size=4))
            case 1:
                del changed[at : at + data.draw(st.integers(1, 200))]
            case 2:
                changed[at:at] = changed[data.draw(places) :][: data.draw(st.integers(1, 200))]
            case 3:
                changed[at : at + 4] = data.draw(
                    st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
                )
            case 4:
                del changed[at:]
    return bytes(changed)


class TestFuzz:
    @pytest.mark.parametrize("original", ORIGINALS)
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def test_damage_of_any_kind_is_refused_or_cleaned_and_nothing_else(self, original, data):
        kind = {b"\x89": "png", b"\xff": "jpeg", b"R": "webp"}[original[:1]]
        damaged = mutated(original, data)
        try:
            read_outline(io.BytesIO(damaged), kind)
            clean, orientation = PARSERS[kind].clean(damaged)
        except PictureRefused:
            return
        assert orientation in range(1, 9)
        try:
            assert isinstance(read_outline(io.BytesIO(clean), kind), Outline)
        except PictureRefused:
            return
        assert PARSERS[kind].clean(clean)[0] == clean
