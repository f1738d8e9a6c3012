import random
import time
from io import BytesIO

import PIL.Image
import PIL.ImageDraw
import PIL.ImageEnhance
import pytest

from albums.similarity import BANDS, Fingerprint, near_duplicates


def scene(seed):
    """Return a picture of soft blobs: no two seeds look alike."""
    dice = random.Random(seed)
    small = PIL.Image.frombytes("RGB", (6, 6), dice.randbytes(108))
    return small.resize((240, 180), PIL.Image.Resampling.BICUBIC)


def disc(color):
    picture = PIL.Image.new("RGB", (64, 64), "white")
    PIL.ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), fill=color)
    return picture


def encoded(picture, file_format, **options):
    target = BytesIO()
    picture.save(target, file_format, **options)
    return PIL.Image.open(target)


def test_the_same_picture_in_other_files_looks_the_same():
    picture = scene(1)
    variants = {
        "png": picture,
        "jpeg": encoded(picture, "JPEG", quality=60),
        "webp": encoded(picture, "WEBP", quality=50),
        "smaller": picture.resize((96, 72), PIL.Image.Resampling.LANCZOS),
        "brighter": PIL.ImageEnhance.Brightness(picture).enhance(1.04),
        "other": scene(2),
    }

    groups = near_duplicates({name: Fingerprint.of(variant) for name, variant in variants.items()})

    assert groups == [("png", "jpeg", "webp", "smaller", "brighter")]


def test_pictures_that_differ_in_nothing_but_color_are_no_duplicates():
    red, blue = (Fingerprint.of(disc(color)) for color in ("red", "blue"))

    assert (red.edges ^ blue.edges).bit_count() <= 3
    assert not red.resembles(blue)


def test_plain_pictures_of_two_colors_are_no_duplicates():
    prints = {
        color: Fingerprint.of(PIL.Image.new("RGB", (64, 64), color)) for color in ("red", "navy", "white")
    }

    assert near_duplicates(prints) == []


def test_what_can_be_seen_through_stands_on_grey():
    clear = PIL.Image.new("RGBA", (64, 64), (255, 0, 0, 0))

    assert Fingerprint.of(clear) == Fingerprint.of(PIL.Image.new("RGB", (64, 64), (128, 128, 128)))


def test_a_fingerprint_is_written_and_read():
    fingerprint = Fingerprint.of(scene(3))

    assert len(str(fingerprint)) == 112
    assert Fingerprint.parse(str(fingerprint)) == fingerprint
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.parse("00ff")


def test_each_pair_is_found_that_differs_in_as_few_bits():
    dice = random.Random(7)
    prints = {}
    for number in range(400):
        bits = dice.getrandbits(64)
        flipped = bits
        for place in dice.sample(range(64), BANDS - 1):
            flipped ^= 1 << place
        prints[f"{number}a"] = Fingerprint(bits, bytes(48))
        prints[f"{number}b"] = Fingerprint(flipped, bytes(48))

    groups = near_duplicates(prints)

    assert sorted(groups) == sorted((f"{number}a", f"{number}b") for number in range(400))


@pytest.mark.parametrize("kinds", [1, 50, 1 << 64])
def test_thousands_of_pictures_take_a_second_and_not_minutes(kinds):
    dice = random.Random(5)
    edges = [dice.randrange(kinds) for _ in range(4000)]
    prints = {place: Fingerprint(bits, dice.randbytes(48)) for place, bits in enumerate(edges)}
    began = time.process_time()

    near_duplicates(prints)

    assert time.process_time() - began < 5
