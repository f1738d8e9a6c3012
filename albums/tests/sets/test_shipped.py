"""The sets that come with ImageHub are in order: complete, all different, and short enough to be read whole."""

import re
from collections import Counter

import pytest

from albums.models import Album
from albums.set_templates import render_set
from albums.set_templates.importing import SHIPPED, import_sets

pytestmark = pytest.mark.django_db

SIZES = {"playing_cards": 54, "major_arcana": 22, "zodiac_signs": 12}
PIECES = re.compile(r"\w+|[^\w\s]")
ROUGH_LIMIT = 62
"""Words and marks. With the vocabulary of CLIP the longest of them had 60 tokens, of 77."""


@pytest.fixture
def sets():
    list(import_sets(SHIPPED))
    return {album.set_key: album for album in Album.objects.set_templates()}


def test_there_are_three_and_importing_them_twice_changes_nothing(sets):
    assert {key: len(album.set_rows) for key, album in sets.items()} == SIZES
    assert [item.outcome for item in import_sets(SHIPPED)] == ["unchanged"] * 3
    assert [item.warnings for item in import_sets(SHIPPED)] == [[]] * 3


@pytest.mark.parametrize("key", SIZES)
def test_every_picture_has_a_name_and_a_prompt_of_its_own(sets, key):
    items = render_set(sets[key])

    assert len({item.name for item in items}) == len({item.prompt for item in items}) == SIZES[key]
    assert not any(re.search(r"_\d+$", item.name) for item in items), "two rows have one name"


@pytest.mark.parametrize("key", SIZES)
def test_every_prompt_is_short_enough_for_clip(sets, key):
    for item in render_set(sets[key]):
        assert len(PIECES.findall(item.prompt)) <= ROUGH_LIMIT, item
        assert len(item.prompt.split()) < 60
        assert not set("{}") & set(item.prompt)


@pytest.mark.parametrize("key", SIZES)
def test_every_cell_says_something_and_every_column_is_used(sets, key):
    album = sets[key]

    assert all(cell for row in album.set_rows for cell in row.values())
    assert all(f"{{{column}}}" in album.prompt_template for column in album.set_rows[0])
    assert all((album.base_prompt, album.style_suffix, album.example_theme, album.negative_prompt))
    assert (album.width % 8, album.height % 8) == (0, 0)


def test_the_deck_is_a_deck(sets):
    rows = sets["playing_cards"].set_rows

    assert list(rows[0]) == ["value", "suit", "personality", "visual_layout"]
    assert Counter(row["suit"] for row in rows) == {
        "Hearts": 13, "Diamonds": 13, "Clubs": 13, "Spades": 13, "Day": 1, "Night": 1,
    }  # fmt: skip
    assert Counter(row["value"] for row in rows) == {
        **dict.fromkeys(
            ["Ace", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Jack", "Queen", "King"], 4
        ),
        "Joker": 2,
    }  # fmt: skip


def test_the_arcana_are_numbered_from_the_fool_to_the_world(sets):
    numbers = [row["number"] for row in sets["major_arcana"].set_rows]
    cards = [row["card"] for row in sets["major_arcana"].set_rows]

    assert numbers == [
        "0",
        "I",
        "II",
        "III",
        "IV",
        "V",
        "VI",
        "VII",
        "VIII",
        "IX",
        "X",
        "XI",
        "XII",
        "XIII",
        "XIV",
        "XV",
        "XVI",
        "XVII",
        "XVIII",
        "XIX",
        "XX",
        "XXI",
    ]
    assert (cards[0], cards[13], cards[-1]) == ("The Fool", "Death", "The World")


def test_the_signs_go_round_the_elements(sets):
    elements = [row["element"] for row in sets["zodiac_signs"].set_rows]

    assert elements == ["fire", "earth", "air", "water"] * 3
