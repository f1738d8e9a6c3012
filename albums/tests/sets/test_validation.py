import pytest

from albums.set_templates import check_theme, validate_set_template
from albums.tests.sets.decks import deck, pointers
from imagehub.errors import Invalid

ROW = {"value": "Ace", "suit": "Hearts"}


def faults_of(**fields):
    with pytest.raises(Invalid) as error:
        validate_set_template(deck(**fields))
    return pointers(error.value)


class TestRows:
    def test_a_good_set_passes(self):
        validate_set_template(deck())

    def test_a_set_has_at_least_one(self):
        assert faults_of(set_rows=[]) == [("/set_rows", "empty")]

    def test_an_album_that_is_no_set_needs_none(self):
        validate_set_template(deck(set_rows=[], is_set_template=False))

    def test_an_album_that_is_no_set_may_have_a_template_that_does_not_fit_yet(self):
        validate_set_template(deck(prompt_template="{colour}", is_set_template=False))

    @pytest.mark.parametrize("cell", [7, None, True, ["Hearts"], {"a": "b"}, 1.5])
    def test_a_cell_that_is_no_string_is_pointed_at(self, cell):
        rows = [ROW, ROW, ROW, ROW | {"suit": cell}]

        assert faults_of(set_rows=rows) == [("/set_rows/3/suit", "not_a_string")]

    def test_cells_are_checked_on_every_album(self):
        assert faults_of(set_rows=[{"a": 1}], is_set_template=False) == [("/set_rows/0/a", "not_a_string")]

    @pytest.mark.parametrize("row", ["Ace", None, ["Ace"], {}])
    def test_a_row_is_an_object_that_says_something(self, row):
        assert faults_of(set_rows=[ROW, row]) == [("/set_rows/1", "invalid_row")]

    @pytest.mark.parametrize("rows", [{"value": "Ace"}, "Ace", None])
    def test_rows_are_a_list(self, rows):
        assert faults_of(set_rows=rows) == [("/set_rows", "invalid")]

    def test_every_fault_is_told(self):
        rows = [{"value": "Ace", "suit": 1}, {"value": None, "suit": "Spades"}]

        assert [pointer for pointer, _ in faults_of(set_rows=rows)] == [
            "/set_rows/0/suit",
            "/set_rows/1/value",
        ]

    def test_but_not_more_than_anybody_reads(self):
        assert len(faults_of(set_rows=[{"value": 1, "suit": 2}] * 400)) == 100

    def test_there_are_not_too_many(self):
        validate_set_template(deck(set_rows=[ROW] * 1000))

        assert faults_of(set_rows=[ROW] * 10_001) == [("/set_rows", "max_length")]

    @pytest.mark.parametrize("text", ["a\x00b", "half a pair \ud83d"])
    def test_a_cell_that_postgresql_cannot_store_is_refused(self, text):
        assert faults_of(set_rows=[ROW | {"suit": text}]) == [("/set_rows/0/suit", "invalid")]


class TestColumns:
    def test_a_column_that_the_template_needs_may_not_be_left_out(self):
        assert faults_of(set_rows=[ROW, {"value": "King"}]) == [("/set_rows/1/suit", "missing_column")]

    def test_any_other_may(self):
        validate_set_template(deck(set_rows=[ROW | {"mood": "calm"}, ROW]))

    def test_an_empty_cell_is_a_cell(self):
        validate_set_template(deck(set_rows=[ROW | {"suit": ""}]))

    @pytest.mark.parametrize("name", ["", " ", " suit", "a{b", "}", "a\nb", "x" * 101])
    def test_names_that_no_placeholder_could_have(self, name):
        [(pointer, code)] = faults_of(set_rows=[ROW | {name: "x"}])

        assert (pointer.startswith("/set_rows/0/"), code) == (True, "invalid_column")

    def test_a_pointer_is_written_as_json_pointers_are(self):
        assert faults_of(set_rows=[ROW | {"a/b~c": 1}]) == [("/set_rows/0/a~1b~0c", "not_a_string")]


class TestPlaceholders:
    def test_one_that_names_no_column_is_named(self):
        with pytest.raises(Invalid) as error:
            validate_set_template(deck(prompt_template="{value} of {colour}"))

        assert pointers(error.value) == [("/prompt_template", "unknown_placeholder")]
        assert "{colour}" in str(error.value)

    @pytest.mark.parametrize(
        "template", ["{}", "{ suit }", "{Suit}", "{suit!r}", "{suit.upper}", "{suit:>9}", "{0}"]
    )
    def test_there_are_no_other_kinds(self, template):
        assert faults_of(prompt_template=template) == [("/prompt_template", "unknown_placeholder")]

    @pytest.mark.parametrize("template", ["{", "}", "}{", "{{suit}}", "a {suit} } b", "no placeholder", ""])
    def test_other_braces_are_characters(self, template):
        validate_set_template(deck(prompt_template=template))


class TestLengths:
    def test_a_prompt_of_the_greatest_length_passes_and_one_more_character_is_pointed_at(self):
        parts = {"base_prompt": "", "style_suffix": "", "prompt_template": "{text}", "example_theme": ""}
        longest = {"text": "x" * 2000}
        validate_set_template(deck(set_rows=[longest], **parts))

        rows = [{"text": "short"}, longest]

        assert faults_of(set_rows=rows, **(parts | {"style_suffix": "y"})) == [
            ("/set_rows/1", "prompt_too_long")
        ]

    def test_the_example_theme_counts(self):
        parts = {"base_prompt": "", "style_suffix": "", "prompt_template": "{text}"}

        assert faults_of(set_rows=[{"text": "x" * 1990}], **parts) == [("/set_rows/0", "prompt_too_long")]

    def test_the_limit_is_the_configured_one(self, set_config):
        set_config("generation: {max_prompt_length: 30}")

        assert {code for _, code in faults_of()} == {"prompt_too_long"}

    def test_a_prompt_that_would_be_empty(self):
        parts = {"base_prompt": " ", "style_suffix": "", "prompt_template": "{suit}"}

        assert faults_of(set_rows=[{"suit": ""}], **parts) == [("/set_rows/0", "blank")]

    @pytest.mark.parametrize("field", ["base_prompt", "prompt_template", "style_suffix", "negative_prompt"])
    def test_of_texts(self, field):
        assert (f"/{field}", "max_length") in faults_of(**{field: "x" * 2001})

    def test_of_the_example(self):
        assert faults_of(example_theme="x" * 501) == [("/example_theme", "max_length")]


class TestSides:
    @pytest.mark.parametrize(("width", "height"), [(None, None), (64, 2048), (512, 720)])
    def test_that_fit(self, width, height):
        validate_set_template(deck(width=width, height=height))

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (56, "out_of_range"),
            (2056, "out_of_range"),
            (500, "not_a_multiple"),
            ("512", "invalid"),
            (True, "invalid"),
        ],
    )
    def test_that_do_not(self, value, code):
        assert faults_of(width=value) == [("/width", code)]
        assert faults_of(height=value) == [("/height", code)]


class TestLoras:
    def test_that_fit(self):
        validate_set_template(deck(loras=[{"id": "a", "weight": -2}, {"id": "b", "weight": 2.0}]))

    @pytest.mark.parametrize("weight", [2.1, -2.1, "1", None, True, float("nan"), float("inf")])
    def test_a_weight_out_of_range(self, weight):
        loras = [{"id": "a", "weight": 1}, {"id": "b", "weight": weight}]

        assert faults_of(loras=loras) == [("/loras/1/weight", "out_of_range")]

    @pytest.mark.parametrize("lora_id", ["", " ", None, 0, True, 1.5, "x" * 65, ["a"]])
    def test_what_is_no_id(self, lora_id):
        assert faults_of(loras=[{"id": lora_id, "weight": 1}]) == [("/loras/0/id", "invalid")]

    def test_the_same_one_twice(self):
        loras = [{"id": "7", "weight": 1}, {"id": 7, "weight": 0.5}]

        assert faults_of(loras=loras) == [("/loras/1/id", "duplicate")]

    def test_a_path_is_not_taken(self):
        loras = [{"id": "a", "weight": 1, "path": "/srv/a.safetensors"}]

        assert faults_of(loras=loras) == [("/loras/0/path", "unknown_field")]

    def test_too_many(self):
        loras = [{"id": str(number), "weight": 0.1} for number in range(9)]

        assert faults_of(loras=loras) == [("/loras", "max_length")]

    @pytest.mark.parametrize("loras", [{}, "a", None])
    def test_what_is_no_list(self, loras):
        assert faults_of(loras=loras) == [("/loras", "invalid")]


class TestThemes:
    def test_white_space_around_one_is_taken_off(self):
        assert check_theme("  art nouveau ") == "art nouveau"
        assert check_theme("x" * 500) == "x" * 500

    @pytest.mark.parametrize("theme", ["", "  ", "x" * 501, "a\x00b"])
    def test_that_are_no_good(self, theme):
        with pytest.raises(Invalid) as error:
            check_theme(theme)

        assert error.value.pointer == "/theme"
