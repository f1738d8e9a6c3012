"""From what a request says to a recipe in which nothing is left open."""

import pytest

from albums.models import Album
from imagehub.errors import InvalidFields
from training.models import BaseModel
from training.recipe import Recipe
from training.services.recipes import resolve_recipe, with_steps

SMALL = BaseModel(name="small", default_width=64, default_height=64, default_guidance_scale=3.0)
LARGE = BaseModel(name="large", default_width=1024, default_height=1024)


def faults(config, **options):
    with pytest.raises(InvalidFields) as caught:
        resolve_recipe(config, SMALL, **options)
    return {fault.pointer: fault.code for fault in caught.value.faults}


def test_what_is_said_stands_and_the_rest_suits_the_base_model():
    recipe = resolve_recipe({"steps": 60, "alpha": 4}, SMALL)

    assert (recipe.steps, recipe.alpha, recipe.resolution, recipe.bucket_step) == (60, 4.0, 64, 8)
    assert (recipe.sample_width, recipe.sample_height, recipe.sample_guidance_scale) == (64, 64, 3.0)
    assert (resolve_recipe({}, LARGE).resolution, resolve_recipe({}, LARGE).bucket_step) == (1024, 64)


def test_a_seed_that_is_not_said_is_drawn():
    assert len({resolve_recipe({}, SMALL).seed for _ in range(5)}) > 1
    assert resolve_recipe({"seed": 7}, SMALL).seed == 7


def test_samples_show_the_trigger_word_unless_they_are_to_show_something_else():
    assert resolve_recipe({"sample_every": 5}, SMALL, trigger_word="zbr").sample_prompts == ("zbr",)
    said = {"sample_every": 5, "sample_prompts": ["a horse"]}
    assert resolve_recipe(said, SMALL, trigger_word="zbr").sample_prompts == ("a horse",)
    assert resolve_recipe({}, SMALL, trigger_word="zbr").sample_prompts == ()


def test_repeats_name_albums_of_the_training_however_their_ids_are_written():
    album, other = Album(), Album()

    recipe = resolve_recipe({"repeats": {album.pk.hex.upper(): 3}}, SMALL, albums=[album, other])

    assert recipe.repeats == {str(album.pk): 3}


def test_repeats_that_would_count_for_nothing_are_pointed_at():
    album, foreign = Album(), Album()
    repeats = {str(album.pk): 2, album.pk.hex: 3, str(foreign.pk): 2, "a/b": 1}

    found = faults({"repeats": repeats, "rank": 500}, albums=[album])

    assert found == {
        f"/config/repeats/{album.pk.hex}": "does_not_exist",
        f"/config/repeats/{foreign.pk}": "does_not_exist",
        "/config/repeats/a~1b": "does_not_exist",
        "/config/rank": "out_of_range",
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"steps": True}, {"/config/steps": "invalid"}),
        ({"steps": 1000.5}, {"/config/steps": "invalid"}),
        ({"steps": "60"}, {"/config/steps": "invalid"}),
        ({"steps": 5}, {"/config/steps": "out_of_range"}),
        ({"rank": 500}, {"/config/rank": "out_of_range"}),
        ({"rank": 0}, {"/config/rank": "invalid"}),
        ({"resolution": 32}, {"/config/resolution": "out_of_range"}),
        ({"batch_size": 65}, {"/config/batch_size": "out_of_range"}),
        ({"batch_size": "x"}, {"/config/batch_size": "invalid"}),
        ({"learning_rate": float("nan")}, {"/config/learning_rate": "invalid"}),
        ({"learning_rate": float("inf")}, {"/config/learning_rate": "invalid"}),
        ({"alpha": "3"}, {"/config/alpha": "invalid"}),
        ({"alpha": True}, {"/config/alpha": "invalid"}),
        ({"a/b~": 1}, {"/config/a~1b~0": "unknown_field"}),
        (
            {"target_modules": ["to_q", 3]},
            {"/config/target_modules": "invalid", "/config/target_modules/1": "invalid"},
        ),
        ({"repeats": {"a": 0}}, {"/config/repeats/a": "invalid"}),
        ({"repeats": {"a\0": 1}}, {"/config/repeats": "invalid"}),
        ({"sample_prompts": ["a", "\ud800"]}, {"/config/sample_prompts/1": "invalid"}),
        ({"sample_every": 5}, {"/config/sample_every": "invalid"}),
        ({"steps": 60, "warmup_steps": 61}, {"/config/warmup_steps": "invalid"}),
        ({"bucket_step": 128}, {"/config/bucket_step": "invalid"}),
        ({"rank": 0, "steps": "x"}, {"/config/rank": "invalid", "/config/steps": "invalid"}),
    ],
)
def test_what_is_wrong_is_pointed_at(config, expected):
    assert faults(config) == expected


def test_the_default_of_steps_is_held_to_the_bounds_too(set_config):
    set_config("training: {steps: {minimum: 10, maximum: 100}}")

    assert faults({}) == {"/config/steps": "out_of_range"}


def test_steps_may_be_raised_and_not_lowered_below_what_is_done():
    recipe = Recipe(steps=60).model_dump(mode="json")

    assert with_steps(recipe, 90, done=60).steps == 90
    for steps in (50, 100_000):
        with pytest.raises(InvalidFields) as caught:
            with_steps(recipe, steps, done=60)
        assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [("/steps", "out_of_range")]
