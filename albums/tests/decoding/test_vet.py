"""Rows U1-U3, U5-U18 and U44 of the upload checklist, as far as they are about the picture itself."""

import time

import PIL.Image
import pytest

from albums.decoding import ImpossiblePicture, PictureRefused, PictureTooLarge, UnsupportedPicture
from albums.tests.decoding import samples
from albums.tests.decoding.samples import SCRIPT, SECRET, SERIAL, drawing, opened, saved

FORMATS = ["PNG", "JPEG", "WEBP"]
NAMES = ["a.png", "a.jpg", "a.jpeg", "a.webp"]


class TestAgreement:
    @pytest.mark.parametrize(
        "name", ["a.png", "A.PNG", "a.b.png", "evil.php.png", "../../etc/passwd.png", ".png"]
    )
    @pytest.mark.parametrize("content_type", ["", "image/png", "IMAGE/PNG; q=1", "application/octet-stream"])
    def test_takes_what_agrees(self, take, name, content_type):
        picture = take(saved(drawing(), "PNG"), name=name, content_type=content_type)

        assert (picture.format, picture.width, picture.height, picture.frames) == ("png", 60, 40, 1)

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "png",
            "a",
            "a.png.php",
            "a.png\0.php",
            "a.png;.php",
            "a.png.",
            "a.png ",
            "a.gif",
            "a.svg",
            ".htaccess",
        ],
    )
    def test_refuses_other_endings(self, take, name):
        with pytest.raises(UnsupportedPicture) as error:
            take(saved(drawing(), "PNG"), name=name)

        assert error.value.code == "unsupported_media_type"

    @pytest.mark.parametrize("content_type", ["text/html", "image/gif", "image/svg+xml", "image/*", "png"])
    def test_refuses_other_declared_types(self, take, content_type):
        with pytest.raises(UnsupportedPicture) as error:
            take(saved(drawing(), "PNG"), content_type=content_type)

        assert error.value.code == "unsupported_media_type"

    @pytest.mark.parametrize(
        ("name", "content_type"), [("a.jpg", ""), ("a.webp", ""), ("a.png", "image/jpeg")]
    )
    def test_refuses_lies(self, take, name, content_type):
        with pytest.raises(UnsupportedPicture) as error:
            take(saved(drawing(), "PNG"), name=name, content_type=content_type)

        assert error.value.code == "type_mismatch"

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("kind", samples.FOREIGN)
    def test_refuses_the_bytes_of_every_other_format(self, take, kind, name):
        with pytest.raises(UnsupportedPicture) as error:
            take(samples.FOREIGN[kind], name=name)

        assert error.value.code == "unsupported_media_type"

    def test_refuses_an_empty_file(self, take):
        with pytest.raises(UnsupportedPicture) as error:
            take(b"")

        assert error.value.code == "empty_file"

    def test_refuses_a_large_file_before_it_looks_at_it(self, take):
        with pytest.raises(PictureTooLarge) as error:
            take(samples.FOREIGN["gif"] + bytes(100_000), max_file_bytes=100_000)

        assert error.value.code == "too_large"


class TestLimits:
    @pytest.mark.parametrize(
        ("data", "limits", "code"),
        [
            (samples.black_png(13_000, 13_000), {}, "too_many_pixels"),
            (samples.header_only_png(), {}, "too_many_pixels"),
            (samples.black_png(60_000, 1), {}, "bad_aspect_ratio"),
            (samples.black_png(5000, 3000), {}, "too_wide"),
            (saved(drawing(300, 200), "JPEG"), {"max_side": 299}, "too_wide"),
            (saved(drawing(300, 200), "WEBP"), {"max_pixels": 59_999}, "too_many_pixels"),
            (samples.long_animation(8, 8, 101), {}, "too_many_frames"),
            (samples.long_animation(4000, 4000, 20), {}, "too_many_pixels"),
            (samples.animation("PNG"), {"max_frames": 2}, "too_many_frames"),
            (samples.animation("WEBP"), {"max_frames": 2}, "too_many_frames"),
            (samples.animation("WEBP"), {"max_total_pixels": 48 * 32 * 3 - 1}, "too_many_pixels"),
        ],
        ids=[
            "bomb",
            "header only",
            "ratio",
            "side",
            "side of jpeg",
            "pixels of webp",
            "small frames",
            "large frames",
            "frames of png",
            "frames of webp",
            "pixels of frames",
        ],
    )
    def test_refuses_at_once_what_is_beyond_them(self, take, staging, data, limits, code):
        before = time.thread_time()
        with pytest.raises(ImpossiblePicture) as error:
            take(data, **limits)

        assert error.value.code == code
        assert time.thread_time() - before < 0.05
        assert list(staging.iterdir()) == []

    def test_takes_what_is_just_within_them(self, take):
        limits = {
            "max_side": 300,
            "max_pixels": 60_000,
            "max_total_pixels": 60_000,
            "max_ratio": 2,
            "max_frames": 1,
        }

        assert take(saved(drawing(300, 200), "PNG"), **limits).width == 300

    @pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
    def test_refuses_bombs_in_metadata(self, take, kind):
        with pytest.raises(ImpossiblePicture) as error:
            take(samples.metadata_bomb(kind))

        assert error.value.code == "metadata_bomb"


class TestDamage:
    @pytest.mark.parametrize("file_format", FORMATS)
    @pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
    def test_refuses_what_is_cut_off(self, take, staging, file_format, share):
        data = saved(drawing(300, 200), file_format)

        with pytest.raises(PictureRefused):
            take(data[: int(len(data) * share)])

        assert list(staging.iterdir()) == []

    def test_refuses_a_wrong_checksum(self, take):
        data = bytearray(saved(drawing(), "PNG"))
        data[len(data) // 2] ^= 1

        with pytest.raises(ImpossiblePicture, match="checksum"):
            take(bytes(data))

    def test_refuses_an_animation_that_lacks_frames(self, take):
        with pytest.raises(ImpossiblePicture):
            take(samples.long_animation(8, 8, 3, declared=4))

    def test_says_nothing_of_libraries_or_paths(self, take, staging):
        with pytest.raises(ImpossiblePicture) as error:
            take(
                samples.SIGNATURE
                + samples.png_header(9, 9)
                + samples.chunk(b"IDAT", b"?")
                + samples.chunk(b"IEND", b"")
            )

        assert str(error.value) == "The picture is damaged."
        assert error.value.code == "unreadable_picture"

    def test_a_staging_folder_that_is_gone_is_no_fault_of_the_picture(self, take, staging):
        staging.rmdir()

        with pytest.raises(FileNotFoundError):
            take(saved(drawing(), "PNG"))


class TestPrivacy:
    @pytest.mark.parametrize("make", [samples.telling_png, samples.telling_jpeg, samples.telling_webp])
    def test_nothing_that_tells_of_people_is_left(self, take, make):
        data = make()
        assert SECRET in data
        assert SERIAL in data

        kept = take(data, thumbnail_size=32)

        for path in (kept.path, kept.thumbnail):
            content = path.read_bytes()
            picture = opened(content)
            for told in (
                SECRET,
                SERIAL,
                SCRIPT,
                b"<script",
                b"<?php",
                b"ACME",
                b"Exif",
                b"eXIf",
                b"adobe",
                b"MPF",
            ):
                assert told not in content
            assert not dict(picture.getexif())
            assert (
                not set(picture.info)
                - {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "gamma"}
                - {
                    "loop",
                    "background",
                    "timestamp",
                    "duration",
                }
            )

    @pytest.mark.parametrize("make", [samples.telling_png, samples.telling_jpeg, samples.telling_webp])
    def test_the_pixels_are_the_same(self, take, make):
        data = make()

        assert opened(take(data).path.read_bytes()).tobytes() == opened(data).tobytes()

    def test_the_samples_tell_where_they_were_taken(self):
        assert opened(samples.telling_jpeg()).getexif().get_ifd(0x8825)[2] == (52.0, 31.0, 12.0)

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_a_profile_is_kept_without_its_owner(self, take, file_format):
        data = saved(drawing(), file_format, icc_profile=samples.profile(), quality=90)
        assert SECRET in opened(data).info["icc_profile"]

        kept = take(data, thumbnail_size=32)

        for path in (kept.path, kept.thumbnail):
            profile = opened(path.read_bytes()).info["icc_profile"]
            assert SECRET not in profile
            assert SERIAL[:4] not in profile

    def test_a_zip_behind_a_picture_is_gone(self, take):
        data = saved(drawing(), "JPEG") + samples.zipped()

        assert b"PK\3\4" not in take(data).path.read_bytes()

    def test_the_second_picture_of_a_pair_is_gone(self, take):
        data = samples.camera_pair()

        kept = take(data, name="pair.jpg").path.read_bytes()

        assert opened(data).format == "MPO"
        assert opened(kept).format == "JPEG"
        assert kept.count(b"\xff\xd8\xff") == 1

    def test_what_is_clean_is_kept_byte_by_byte(self, take):
        for file_format in FORMATS:
            data = saved(drawing(), file_format)
            assert take(data).path.read_bytes() == data

    def test_cleaning_twice_changes_nothing_more(self, take):
        for make in (samples.telling_png, samples.telling_jpeg, samples.telling_webp):
            once = take(make()).path.read_bytes()
            assert take(once).path.read_bytes() == once

    def test_the_original_stays_where_it_was_and_results_are_private(self, take, tmp_path):
        data = samples.telling_jpeg()

        kept = take(data, thumbnail_size=32)

        assert (tmp_path / "as it came").read_bytes() == data
        assert kept.path.parent == kept.thumbnail.parent == tmp_path / "staging"
        assert kept.path.stat().st_mode & 0o777 == 0o600


class TestKinds:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    def test_takes_every_mode_of_png(self, take, mode):
        picture = PIL.Image.new(mode, (60, 40), 40_000) if mode == "I;16" else drawing(mode=mode)
        data = saved(picture, "PNG")

        kept = take(data, thumbnail_size=30)

        assert opened(kept.path.read_bytes()).tobytes() == picture.tobytes()
        assert opened(kept.thumbnail.read_bytes()).size == (30, 20)

    def test_takes_what_can_be_seen_through_in_palettes(self, take):
        picture = drawing(mode="P")
        data = saved(picture, "PNG", transparency=picture.getpixel((0, 0)))

        kept = take(data, thumbnail_size=30)

        assert opened(kept.path.read_bytes()).info["transparency"] == opened(data).info["transparency"]
        assert opened(kept.thumbnail.read_bytes()).mode == "RGBA"

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize(
        "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"keep_rgb": True}]
    )
    def test_takes_every_kind_of_jpeg(self, take, mode, options):
        data = samples.telling_jpeg(drawing(300, 200, mode=mode), quality=60, **options)

        kept = take(data, thumbnail_size=150)

        assert opened(kept.path.read_bytes()).tobytes() == opened(data).tobytes()
        assert opened(kept.thumbnail.read_bytes()).size == (150, 100)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    @pytest.mark.parametrize("lossless", [True, False])
    def test_takes_every_kind_of_webp(self, take, mode, lossless):
        picture = drawing(300, 200, mode=mode)
        data = samples.telling_webp(saved(picture, "WEBP", lossless=lossless, exif=samples.exif()))

        kept = take(data, thumbnail_size=150)

        assert opened(kept.path.read_bytes()).tobytes() == opened(data).tobytes()
        assert opened(kept.thumbnail.read_bytes()).mode == mode

    @pytest.mark.parametrize(
        ("file_format", "options"),
        [("PNG", {}), ("PNG", {"default_image": True}), ("WEBP", {}), ("WEBP", {"lossless": True})],
    )
    def test_takes_animations_whole(self, take, file_format, options):
        data = samples.animation(file_format, frames=4, exif=samples.exif(), **options)
        assert SECRET in data

        kept = take(data, thumbnail_size=24)

        before, after = opened(data), opened(kept.path.read_bytes())
        assert kept.frames == before.n_frames == after.n_frames
        for number in range(kept.frames):
            before.seek(number)
            after.seek(number)
            assert after.tobytes() == before.tobytes()
            assert after.info.get("duration") == before.info.get("duration")
        assert SECRET not in kept.path.read_bytes()
        assert opened(kept.thumbnail.read_bytes()).size == (24, 16)
        assert getattr(opened(kept.thumbnail.read_bytes()), "n_frames", 1) == 1

    def test_refuses_an_animation_with_a_broken_frame_at_its_end(self, take):
        data = samples.animation("PNG", frames=3)
        start = data.rindex(b"fdAT")
        broken = data[: start - 4] + samples.chunk(b"fdAT", data[start + 4 : start + 8] + b"?" * 20)

        with pytest.raises(ImpossiblePicture):
            take(broken + samples.chunk(b"IEND", b""))

    def test_makes_no_thumbnail_of_what_is_no_larger(self, take):
        assert take(saved(drawing(300, 200), "PNG"), thumbnail_size=300).thumbnail is None
        assert take(saved(drawing(301, 200), "PNG"), thumbnail_size=300).thumbnail is not None
