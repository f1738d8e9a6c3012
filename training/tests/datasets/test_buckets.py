import random

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.buckets import (
    LONGEST,
    batches_in,
    bucket_of,
    crop_box,
    cropped_share,
    histogram,
)

sides = st.integers(8, 6000)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((1024, 1024), (512, 512)),
        ((1920, 1080), (640, 384)),
        ((1080, 1920), (384, 640)),
        ((3000, 4000), (448, 576)),
        ((300, 400), (256, 384)),  # never scaled up: what does not fill a step is cropped
        ((600, 900), (384, 576)),  # not 448 x 576, which is larger and crops a seventh
        ((64, 64), (64, 64)),
        ((64, 3000), (64, 1024)),  # a strip is cropped to twice the resolution
    ],
)
def test_a_picture_has_the_bucket_that_crops_least(size, bucket):
    assert bucket_of(size, resolution=512, step=64) == bucket


def test_a_picture_smaller_than_a_step_has_none():
    assert bucket_of((63, 900), resolution=512, step=64) is None


@pytest.mark.parametrize("size", [(100, 100), (63, 900), (20, 30)])
def test_a_small_picture_is_scaled_up_where_that_is_allowed(size):
    bucket = bucket_of(size, resolution=512, step=64, allow_upscaling=True)

    assert bucket is not None
    assert bucket[0] * bucket[1] > 0.4 * 512 * 512


@given(width=sides, height=sides, resolution=st.integers(8, 256), step=st.sampled_from([8, 16, 64]))
@pytest.mark.parametrize("allow_upscaling", [False, True])
def test_every_bucket_keeps_the_rules(width, height, resolution, step, allow_upscaling):
    resolution = max(resolution * 8, step)
    rules = {"resolution": resolution, "step": step, "allow_upscaling": allow_upscaling}

    bucket = bucket_of((width, height), **rules)

    assert bucket == bucket_of((width, height), **rules)
    if bucket is None:
        assert not allow_upscaling
        assert min(width, height) < step
        return
    assert all(side >= step and side % step == 0 and side <= LONGEST * resolution for side in bucket)
    assert bucket[0] * bucket[1] <= resolution**2
    if not allow_upscaling:
        assert bucket[0] <= width
        assert bucket[1] <= height
    turned = bucket_of((height, width), **rules)
    assert turned in {bucket, bucket[::-1]}


@given(width=sides, height=sides, at=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_crop_has_the_shape_of_the_bucket_and_lies_inside(width, height, at):
    bucket = bucket_of((width, height), resolution=512, step=64, allow_upscaling=True)

    left, top, right, bottom = crop_box((width, height), bucket, at)

    assert 0 <= left < right <= width + 1e-6
    assert 0 <= top < bottom <= height + 1e-6
    assert (right - left) / (bottom - top) == pytest.approx(bucket[0] / bucket[1])
    assert right - left == pytest.approx(width) or bottom - top == pytest.approx(height)
    assert 0 <= cropped_share((width, height), bucket) < 1


def test_pillow_scales_and_crops_by_the_box_without_distorting():
    picture = PIL.Image.new("RGB", (300, 100), "red")
    picture.paste("blue", (100, 0, 200, 100))

    small = picture.resize((32, 32), PIL.Image.Resampling.BOX, box=crop_box(picture.size, (32, 32)))

    assert small.getcolors() == [(32 * 32, (0, 0, 255))]


def test_the_crop_is_drawn_to_where_it_is_told():
    assert crop_box((300, 100), (32, 32), (0, 0)) == (0, 0, 100, 100)
    assert crop_box((300, 100), (32, 32), (1, 1)) == (200, 0, 300, 100)


def test_buckets_are_counted_in_one_order():
    buckets = [(512, 512), (64, 128), (512, 512), (64, 64)]
    random.Random(3).shuffle(buckets)

    assert list(histogram(buckets).items()) == [((64, 64), 1), ((64, 128), 1), ((512, 512), 2)]


def test_no_batch_mixes_two_buckets():
    assert batches_in([5, 1, 4], 4) == 2 + 1 + 1
