import pytest

from albums.set_templates import NotASet, SetBroken, item_name, render_set
from albums.tests.sets.decks import deck
from imagehub.errors import Invalid


def prompts(theme=None, **fields):
    return [item.prompt for item in render_set(deck(**fields), theme)]


class TestPrompts:
    def test_are_base_style_row_and_suffix_in_the_order_of_the_rows(self):
        assert prompts("art nouveau") == [
            "a playing card. Art style: art nouveau. Ace of Hearts. clean edges",
            "a playing card. Art style: art nouveau. King of Spades. clean edges",
        ]

    def test_have_the_example_for_a_style_when_no_theme_is_given(self):
        assert prompts()[0] == "a playing card. Art style: woodcut. Ace of Hearts. clean edges"

    def test_name_no_style_when_there_is_none(self):
        assert prompts(example_theme="")[0] == "a playing card. Ace of Hearts. clean edges"

    def test_leave_out_what_is_empty(self):
        assert prompts("ink", base_prompt="", style_suffix="  ")[0] == "Art style: ink. Ace of Hearts"

    def test_leave_out_a_row_that_says_nothing(self):
        rows = [{"value": " ", "suit": ""}]

        assert prompts("ink", set_rows=rows, prompt_template="{value}{suit}") == [
            "a playing card. Art style: ink. clean edges"
        ]

    def test_a_cell_that_looks_like_a_placeholder_is_not_one(self):
        rows = [{"value": "{suit}", "suit": "{value}"}]

        assert "{suit} of {value}" in prompts(set_rows=rows)[0]

    def test_nor_are_those_in_a_theme_or_in_the_other_texts(self):
        [first, _] = prompts("{value}", base_prompt="{suit}", style_suffix="{value}")

        assert first == "{suit}. Art style: {value}. Ace of Hearts. {value}"

    def test_what_means_something_to_format_strings_or_patterns_is_text(self):
        rows = [{"value": r"\1 %s {0} $x", "suit": "{value.__class__}"}]

        assert r"\1 %s {0} $x of {value.__class__}" in prompts(set_rows=rows)[0]

    def test_a_column_may_stand_twice_and_braces_around_it_stay(self):
        template = "{suit}, {suit} {{value}}"

        assert ". Hearts, Hearts {Ace}. " in prompts(prompt_template=template)[0]


class TestNames:
    @pytest.mark.parametrize(
        ("row", "name"),
        [
            ({"value": "Ace", "suit": "Hearts", "name": "x"}, "Ace_of_Hearts"),
            ({"value": "Joker", "suit": "", "name": "Red Joker"}, "Red Joker"),
            ({"mood": "calm", "name": "The Fool"}, "The Fool"),
            ({"mood": "calm", "card": "The Sun"}, "The Sun"),
            ({"mood": "calm", "sign": "Leo"}, "Leo"),
            ({"mood": "calm", "zeal": "none"}, "calm"),
            ({"mood": "", "zeal": "none"}, "item"),
            ({"mood": "  "}, "item"),
            ({}, "item"),
        ],
    )
    def test_come_from_the_columns(self, row, name):
        assert item_name(row) == name

    def test_are_unique_within_a_set_whatever_the_rows_say(self):
        rows = [{"name": name} for name in ("moon", "Moon", "moon_2", "moon", "sun")]
        items = render_set(deck(set_rows=rows, prompt_template="{name}"))

        assert [item.name for item in items] == ["moon", "Moon_2", "moon_2_2", "moon_3", "sun"]

    def test_a_thousand_equal_ones_are_no_work(self):
        names = [item.name for item in render_set(deck(set_rows=[{"value": "A", "suit": "B"}] * 1000))]

        assert names[-1] == "A_of_B_1000"
        assert len(set(names)) == 1000


class TestRefusals:
    def test_an_album_that_is_no_set(self):
        with pytest.raises(NotASet):
            render_set(deck(is_set_template=False), "ink")

    @pytest.mark.parametrize("theme", ["", " ", "x" * 501])
    def test_a_theme_that_is_no_good(self, theme):
        with pytest.raises(Invalid) as error:
            render_set(deck(), theme)

        assert error.value.pointer == "/theme"

    def test_a_theme_with_which_a_prompt_grows_too_long(self):
        with pytest.raises(Invalid) as error:
            render_set(deck(base_prompt="x" * 1900), "y" * 100)

        assert (error.value.pointer, error.value.code) == ("/theme", "prompt_too_long")

    def test_a_set_that_was_stored_before_somebody_lowered_a_limit(self, set_config):
        set_config("generation: {max_prompt_length: 40}")

        with pytest.raises(SetBroken, match="/set_rows/0"):
            render_set(deck(), "ink")
