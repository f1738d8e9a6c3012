from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.trainer.chance import Purpose, chance, crop_place, draw, fixed_noise
from training.trainer.ordering import Order

SHAPE = (4, 6, 8)
BUCKETS = st.lists(st.sampled_from([(64, 64), (64, 128), (128, 64)]), min_size=1, max_size=20)


@st.composite
def orders(draw_one):
    buckets = draw_one(BUCKETS)
    repeats = [draw_one(st.integers(1, 3)) for _ in buckets]
    options = {"seed": draw_one(st.integers(0, 5)), "batch_size": draw_one(st.integers(1, 5))}
    return buckets, repeats, options


class TestOrder:
    @given(orders(), st.integers(0, 3))
    def test_an_epoch_shows_every_picture_as_often_as_it_is_repeated(self, parts, epoch):
        buckets, repeats, options = parts
        order = Order(buckets, repeats, **options)
        first = epoch * order.batches_per_epoch

        batches = [order.batch(first + number) for number in range(order.batches_per_epoch)]

        assert Counter(place for batch in batches for place in batch) == dict(enumerate(repeats))
        assert all(len({buckets[place] for place in batch}) == 1 for batch in batches)
        assert all(1 <= len(batch) <= options["batch_size"] for batch in batches)
        assert {order.epoch_of(first + number) for number in range(order.batches_per_epoch)} == {epoch}

    @given(orders(), st.lists(st.integers(0, 100), min_size=1, max_size=10))
    def test_a_batch_depends_on_nothing_but_its_number(self, parts, numbers):
        buckets, repeats, options = parts
        fresh = [Order(buckets, repeats, **options).batch(number) for number in numbers]
        used = Order(buckets, repeats, **options)

        assert [used.batch(number) for number in numbers] == fresh

    def test_epochs_and_seeds_differ(self):
        def first(seed, epoch):
            order = Order([(64, 64)] * 12, [1] * 12, seed=seed, batch_size=12)
            return order.batch(epoch)

        assert len({first(0, 0), first(0, 1), first(1, 0)}) == 3

    def test_in_one_bucket_smaller_batches_show_the_same_in_the_same_order(self):
        def shown(batch_size):
            order = Order([(64, 64)] * 8, [1] * 8, seed=1, batch_size=batch_size)
            return [place for number in range(order.batches_per_epoch) for place in order.batch(number)]

        assert shown(1) == shown(2) == shown(4)


class TestDraw:
    def test_is_a_function_of_its_arguments(self):
        one, other = (draw(1, 7, SHAPE, timesteps=1000) for _ in range(2))

        assert torch.equal(one.noise, other.noise)
        assert (one.timestep, one.flip, one.caption) == (other.timestep, other.flip, other.caption)

    @pytest.mark.parametrize("numbers", [(1, 8), (2, 7)])
    def test_differs_where_they_do(self, numbers):
        one, other = draw(1, 7, SHAPE, timesteps=1000), draw(*numbers, SHAPE, timesteps=1000)

        assert not torch.equal(one.noise, other.noise)
        assert not torch.equal(one.posterior, other.posterior)
        assert not torch.equal(one.noise, one.posterior)

    def test_shifts_each_channel_as_a_whole_and_leaves_the_rest(self):
        one = draw(1, 7, SHAPE, timesteps=1000)
        other = draw(1, 7, SHAPE, timesteps=1000, noise_offset=0.5)

        shift = other.noise - one.noise
        assert torch.allclose(shift, shift[:, :1, :1].expand(SHAPE), atol=1e-6)
        assert len({round(value, 4) for value in shift[:, 0, 0].tolist()}) == SHAPE[0]
        assert torch.equal(one.posterior, other.posterior)
        assert one.timestep == other.timestep

    def test_is_standard_normal_and_even(self):
        drawn = [draw(1, number, (4, 16, 16), timesteps=1000) for number in range(200)]
        noise = torch.stack([one.noise for one in drawn])

        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(1, abs=0.01)
        assert sum(one.timestep for one in drawn) / 200 == pytest.approx(500, abs=70)
        assert {one.timestep for one in drawn} <= set(range(1000))
        assert sum(one.flip < 0.5 for one in drawn) == pytest.approx(100, abs=30)

    def test_of_one_purpose_is_not_that_of_another(self):
        drawn = {float(chance(purpose, 1, 2).random()) for purpose in Purpose}

        assert len(drawn) == len(Purpose)


def test_the_noise_that_measures_belongs_to_the_picture():
    one = fixed_noise("ab" * 32, 0, SHAPE)

    assert torch.equal(one, fixed_noise("ab" * 32, 0, SHAPE))
    assert not torch.equal(one, fixed_noise("ac" * 32, 0, SHAPE))
    assert not torch.equal(one, fixed_noise("ab" * 32, 1, SHAPE))


def test_the_place_of_a_crop_belongs_to_seed_and_picture():
    places = {crop_place(seed, content) for seed in (1, 2) for content in ("ab" * 32, "ac" * 32)}

    assert len(places) == 4
    assert all(0 <= part < 1 for place in places for part in place)
