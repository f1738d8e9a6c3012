from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from training.starter.captions import known_words, plain_caption, random_caption
from training.starter.drawings import (
    COLORS,
    PICTURE_SIZE,
    SHAPES,
    Combination,
    Drawing,
    all_combinations,
    draw,
    held_out_prompts,
    random_drawing,
    random_scene,
    shape_mask,
    training_combinations,
)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawing_has_the_exact_colors_inside_and_outside_the_shape(shape):
    drawing = Drawing(shape, "purple", "orange", size=44, shift=(3, -2))

    pixels = np.asarray(draw(drawing))

    coverage = shape_mask(shape, 44, (3, -2))
    assert pixels.shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
    assert (coverage == 255).sum() > 300
    assert (pixels[coverage == 255] == COLORS["purple"]).all()
    assert (pixels[coverage == 0] == COLORS["orange"]).all()


def test_edges_are_anti_aliased():
    coverage = shape_mask("circle", 40)

    assert ((coverage > 0) & (coverage < 255)).sum() > 50


def test_a_filled_shape_has_its_color_at_the_center_and_a_ring_has_not():
    middle = PICTURE_SIZE // 2

    assert draw(Drawing("circle", "red", "white")).getpixel((middle, middle)) == COLORS["red"]
    assert draw(Drawing("ring", "red", "white")).getpixel((middle, middle)) == COLORS["white"]


def test_no_two_shapes_look_alike():
    masks = {shape: shape_mask(shape, 44) > 127 for shape in SHAPES}

    for one, other in combinations(SHAPES, 2):
        overlap = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
        assert overlap < 0.9, (one, other)


def test_a_shift_moves_the_shape_and_a_size_scales_it():
    still, moved, larger = shape_mask("heart", 36), shape_mask("heart", 36, (4, -3)), shape_mask("heart", 48)

    assert (np.roll(still, (-3, 4), axis=(0, 1)) == moved).all()
    assert larger.sum() / still.sum() == pytest.approx((48 / 36) ** 2, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "color", "background", "sentence"),
    [
        ("blob", "red", "white", "unknown shape"),
        ("heart", "pink", "white", "unknown color"),
        ("heart", "red", "pink", "unknown color"),
        ("heart", "red", "red", "cannot be seen"),
    ],
)
def test_what_cannot_be_drawn_is_refused(shape, color, background, sentence):
    with pytest.raises(ValueError, match=sentence):
        Drawing(shape, color, background)


def test_a_shape_that_would_leave_the_picture_is_refused():
    with pytest.raises(ValueError, match="inside"):
        Drawing("heart", "red", "white", size=60, shift=(5, 0))


def test_the_same_seed_draws_the_same_pictures():
    def pictures(seed):
        rng = np.random.default_rng(seed)
        drawings = [draw(random_drawing(rng, all_combinations())) for _ in range(5)]
        return [picture.tobytes() for picture in [*drawings, random_scene(rng)]]

    assert pictures(1) == pictures(1)
    assert pictures(1) != pictures(2)


def test_the_held_out_combinations_are_never_trained_on():
    held_out = {prompt.combination for prompt in held_out_prompts()}
    trained = set(training_combinations())
    rng = np.random.default_rng(0)

    assert len(held_out) == 96
    assert not held_out & trained
    assert held_out | trained == set(all_combinations())
    assert all(random_drawing(rng, training_combinations()).combination in trained for _ in range(500))


def test_the_held_out_combinations_cover_everything_evenly():
    prompts = held_out_prompts()

    assert set(Counter(prompt.combination.shape for prompt in prompts).values()) == {8}
    assert set(Counter(prompt.combination.color for prompt in prompts).values()) == {12}
    assert set(Counter(prompt.combination.background for prompt in prompts).values()) == {12}
    assert len({prompt.seed for prompt in prompts}) == 96


@pytest.mark.parametrize(
    ("combination", "caption"),
    [
        (Combination("heart", "red", "white"), "a red heart on a white background"),
        (Combination("arrow", "orange", "black"), "an orange arrow on a black background"),
    ],
)
def test_the_plain_caption_is_a_plain_sentence(combination, caption):
    assert plain_caption(combination) == caption


def test_captions_vary_but_always_say_what_the_picture_shows():
    rng = np.random.default_rng(0)
    combination = Combination("club", "green", "yellow")

    captions = [random_caption(rng, combination) for _ in range(400)]

    words = set(known_words())
    for caption in captions:
        bare = caption.lower().replace(",", " ").replace(".", " ").replace(":", " ").split()
        assert "green club" in " ".join(bare)
        assert "yellow" in bare
        assert {word for word in bare if word in COLORS} == {"green", "yellow"}
        assert {word for word in bare if word in SHAPES} == {"club"}
        assert {word for word in bare if word.isalpha()} <= words
    assert len(set(captions)) > 150
    assert 0.25 < captions.count(plain_caption(combination)) / 400 < 0.45
