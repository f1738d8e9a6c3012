import numpy as np
import pytest
from PIL import Image, ImageFilter

from training.starter.drawings import (
    COLORS,
    SHAPES,
    Combination,
    Drawing,
    all_combinations,
    draw,
    random_drawing,
    random_scene,
)
from training.starter.judge import Verdict, judge


def test_the_judge_sees_what_clean_drawings_show():
    rng = np.random.default_rng(11)
    drawings = [random_drawing(rng, all_combinations()) for _ in range(400)]

    agreements = [judge(draw(drawing)).agrees_with(drawing.combination) for drawing in drawings]

    assert np.mean([all(agreement.values()) for agreement in agreements]) >= 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_and_blur_do_not_deceive_it(shape):
    rng = np.random.default_rng(3)
    pixels = np.asarray(
        draw(Drawing(shape, "blue", "yellow")).filter(ImageFilter.GaussianBlur(0.7)), dtype=float
    )

    noisy = np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)
    verdict = judge(Image.fromarray(noisy))

    assert (verdict.shape, verdict.color, verdict.background) == (shape, "blue", "yellow")


def test_it_sees_no_shape_on_an_empty_background():
    assert judge(Image.new("RGB", (64, 64), COLORS["green"])) == Verdict(None, None, "green")


def test_it_sees_no_shape_in_a_jumble():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))

    assert judge(noise).shape is None
    assert np.mean([judge(random_scene(rng)).shape is None for _ in range(100)]) > 0.6


def test_a_verdict_is_compared_property_by_property():
    verdict = Verdict("heart", "red", "white", 0.9)

    agreement = verdict.agrees_with(Combination("club", "red", "black"))

    assert agreement == {"foreground": True, "background": False, "shape": False}


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="64 x 64"):
        judge(Image.new("RGB", (128, 128)))
