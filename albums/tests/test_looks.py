import functools
import random
from io import BytesIO
from itertools import combinations

import PIL.Image
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from albums.models import Image, ImageLook
from albums.services import lookalikes, looks_of, purge_images, remember_looks, trash_images
from albums.services.looks import AT_ONCE, NEIGHBOURS, fingerprint_of
from albums.similarity import BANDS, BITS_PER_BAND, Fingerprint
from albums.tests.factories import AlbumFactory, ImageFactory, many_images, picture
from albums.tests.test_similarity import encoded

pytestmark = pytest.mark.django_db

DISTINCT = 1000


@functools.lru_cache(8)  # grain is never the same
def photo(seed, size=(96, 72)):
    """Return a picture as a camera would make it: a bright sky over dark ground, things before both, clouds and grain."""
    dice = random.Random(seed)
    width, height = size
    horizon = int(height * dice.uniform(0.35, 0.65))
    seen = PIL.Image.new("RGB", size, tuple(dice.randint(20, 110) for _ in range(3)))
    seen.paste(tuple(dice.randint(150, 250) for _ in range(3)), (0, 0, width, horizon))
    for _ in range(dice.randint(2, 5)):
        wide, high = dice.randint(width // 12, width // 4), dice.randint(height // 12, height // 3)
        mask = PIL.Image.radial_gradient("L").resize((wide, high)).point(lambda level: 255 * (level < 180))
        place = dice.randrange(width - wide), dice.randrange(height // 4, height - high)
        seen.paste(tuple(dice.randrange(256) for _ in range(3)), place, mask)
    clouds = PIL.Image.frombytes("RGB", (9, 7), dice.randbytes(189)).resize(
        size, PIL.Image.Resampling.BICUBIC
    )
    seen = PIL.Image.blend(seen, clouds, 0.3)
    return PIL.Image.blend(seen, PIL.Image.effect_noise(size, 40).convert("RGB"), 0.08)


def look(image, fingerprint):
    remember_looks([(image, fingerprint)])
    return image


def saved(pixels, file_format="PNG", **options):
    target = BytesIO()
    pixels.save(target, file_format, **options)
    width, height = pixels.size
    image = ImageFactory(content=target.getvalue(), width=width, height=height)
    return look(image, Fingerprint.of(pixels))


def average_hash(pixels):
    """The usual hash of 64 bits: which pixels of 8 by 8 are brighter than all of them on average."""
    levels = pixels.convert("L").resize((8, 8), PIL.Image.Resampling.LANCZOS).tobytes()
    mean = sum(levels) / 64
    return sum((level > mean) << place for place, level in enumerate(levels))


class TestLookalikes:
    def test_a_smaller_copy_of_lower_quality_is_found_among_others(self):
        original = saved(photo(1, (240, 180)))
        saved(photo(2, (240, 180)))
        copy = encoded(photo(1, (240, 180)).resize((120, 90)), "JPEG", quality=60)

        found = lookalikes({"copy": Fingerprint.of(copy), "other": Fingerprint.of(photo(3))})

        assert found == {"copy": original.pk}

    def test_the_largest_is_found(self):
        pixels = photo(1, (240, 180))
        saved(pixels.resize((96, 72)))
        largest = saved(pixels)
        saved(pixels.resize((120, 90)))

        assert lookalikes({1: Fingerprint.of(pixels)}) == {1: largest.pk}
        assert lookalikes({1: Fingerprint.of(pixels)}, exclude={largest.pk})[1] != largest.pk

    def test_those_in_the_trash_are_not_there(self):
        image = saved(photo(1))
        trash_images([image.pk])

        assert lookalikes({1: Fingerprint.of(photo(1))}) == {}

    def test_in_an_album_only_what_is_in_it(self):
        inside, outside = saved(photo(1).resize((48, 36))), saved(photo(1))
        album = AlbumFactory(images=[inside])
        prints = {1: Fingerprint.of(photo(1))}

        assert lookalikes(prints, album=album) == {1: inside.pk}
        assert lookalikes(prints) == {1: outside.pk}
        assert lookalikes(prints, album=AlbumFactory()) == {}

    @pytest.mark.parametrize("band", range(BANDS))
    def test_one_part_in_common_is_enough(self, band):
        edges = 0x0123_4567_89AB_CDEF
        others = [place * BITS_PER_BAND + 5 for place in range(BANDS) if place != band]
        image = look(ImageFactory(), Fingerprint(edges, bytes(48)))
        changed = Fingerprint(edges ^ sum(1 << place for place in others), bytes([10] * 48))

        assert lookalikes({1: changed}) == {1: image.pk}

    def test_a_copy_is_found_in_a_crowd_of_plain_pictures(self):
        dice = random.Random(3)
        crowd = many_images(40 * NEIGHBOURS)
        tones = [bytes(dice.choices(range(100, 120), k=48)) for _ in crowd]
        remember_looks(zip(crowd, (Fingerprint(0, colors) for colors in tones), strict=True))
        wanted = look(ImageFactory(width=500, height=500), Fingerprint(0, bytes([80, 140] * 24)))

        with CaptureQueriesContext(connection) as queries:
            found = lookalikes({1: Fingerprint(1, bytes([81, 139] * 24))})

        assert found == {1: wanted.pk}
        assert len(queries) == 1

    def test_of_a_crowd_only_so_many_are_compared(self, monkeypatch):
        crowd = many_images(20 * NEIGHBOURS)
        remember_looks(
            (image, Fingerprint(0, bytes([number % 9] * 48))) for number, image in enumerate(crowd)
        )
        compared = []
        resembles = Fingerprint.resembles
        monkeypatch.setattr(
            Fingerprint, "resembles", lambda one, other: bool(compared.append(1)) or resembles(one, other)
        )

        assert lookalikes({1: Fingerprint(0, bytes([4] * 48))})
        assert len(compared) <= 2 * NEIGHBOURS

    @pytest.mark.parametrize("count", [1, AT_ONCE])
    def test_it_takes_as_many_queries_for_many_as_for_one(self, count, django_assert_num_queries):
        album = AlbumFactory(images=[saved(photo(seed)) for seed in range(3)])
        prints = {seed: Fingerprint.of(photo(seed)) for seed in range(count)}

        with django_assert_num_queries(1):
            assert len(lookalikes(prints)) == min(count, 3)
        with django_assert_num_queries(2):
            lookalikes(prints, album=album)

    def test_the_indexes_are_entered_where_the_neighbours_are(self):
        saved(photo(1))
        with CaptureQueriesContext(connection) as queries:
            lookalikes({1: Fingerprint.of(photo(1))})
        explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":  # on a table this small it would rather read it all
                for kind in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"):
                    cursor.execute(f"SET LOCAL enable_{kind} = off")
            cursor.execute(f"{explain} {queries.captured_queries[-1]['sql']}")
            plan = "\n".join(str(row[-1]) for row in cursor.fetchall())

        assert {f"imagelook_edges_{band}" for band in range(BANDS)} <= set(plan.replace("(", " ").split())
        assert "SCAN albums_" not in plan
        assert "Seq Scan" not in plan

    def test_a_thousand_others_do_not_look_the_same(self):
        photos = [photo(seed) for seed in range(DISTINCT)]
        prints = [Fingerprint.of(one) for one in photos]
        images = many_images(DISTINCT)
        remember_looks(zip(images, prints, strict=True))
        hashes = [average_hash(one) for one in photos[::5]]

        false = sum(
            bool(lookalikes({0: one}, exclude={image.pk}))
            for image, one in zip(images[::5], prints[::5], strict=True)
        )
        usual = sum((one ^ other).bit_count() <= 10 for one, other in combinations(hashes, 2))

        assert false < 0.005 * DISTINCT / 5
        # The threshold of a hash that is widely used would not do.
        assert usual > 0.005 * len(hashes) * (len(hashes) - 1) / 2


class TestRememberLooks:
    def test_what_is_known_is_replaced(self):
        image, other = ImageFactory(), ImageFactory()
        remember_looks([(image, Fingerprint(1, bytes(48))), (other, Fingerprint(2, bytes(48)))])
        remember_looks([(image, Fingerprint(1 << 63 | 7, bytes(range(48))))])

        assert looks_of([image.pk, other.pk]) == {
            image.pk: Fingerprint(1 << 63 | 7, bytes(range(48))),
            other.pk: Fingerprint(2, bytes(48)),
        }

    def test_it_goes_with_its_image(self):
        image = look(ImageFactory(), Fingerprint(1, bytes(48)))
        trash_images([image.pk])
        purge_images([image.pk])

        assert not Image.objects.exists()
        assert not ImageLook.objects.exists()


def test_an_image_is_looked_at_by_its_thumbnail(anywhere):
    pixels = photo(4, (400, 300))
    target = BytesIO()
    pixels.save(target, "PNG")
    image = ImageFactory(content=target.getvalue(), width=400, height=300)

    assert fingerprint_of(image).resembles(Fingerprint.of(pixels))
    assert not fingerprint_of(image).resembles(fingerprint_of(ImageFactory(content=picture())))
