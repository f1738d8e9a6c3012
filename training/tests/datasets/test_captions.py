import json

import pytest

from training.datasets.captions import fewest_tokens, is_too_long, names, token_counter
from training.services import BUNDLED

STARTER = BUNDLED["starter"]
CAPTIONS = ["a red heart on a white background", "42 O'Neill's heart — très joli!!", "zxqv " * 40, ""]


@pytest.fixture
def split_tokenizer(tmp_path):
    """The tokenizer of the starter model in the two files that older models have."""
    model = json.loads((STARTER / "tokenizer" / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    (tmp_path / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]))
    return tmp_path


def real_count(caption):
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(STARTER / "tokenizer")(caption, truncation=False).input_ids)


def test_tokens_are_counted_as_the_tokenizer_of_the_model_does():
    count = token_counter(STARTER)

    assert [count(caption) for caption in CAPTIONS] == [real_count(caption) for caption in CAPTIONS]


def test_a_tokenizer_in_two_files_counts_the_same(split_tokenizer):
    count = token_counter(split_tokenizer)

    assert [count(caption) for caption in CAPTIONS] == [real_count(caption) for caption in CAPTIONS]


def test_without_a_tokenizer_no_caption_is_said_to_be_longer_than_it_is(tmp_path):
    for model in (None, tmp_path):
        count = token_counter(model)

        assert all(count(caption) <= real_count(caption) for caption in CAPTIONS)
        assert count("a red heart") == 5
    assert token_counter(None) is fewest_tokens


def test_a_damaged_tokenizer_is_none(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")

    assert token_counter(tmp_path) is fewest_tokens


@pytest.mark.parametrize(
    "caption",
    [
        "red " * 75,
        "red " * 76,
        "é" * 37,
        "é" * 38,
        "é" * 80,
        "İ" * 37,
        "\u0958" * 25,
        "a" * 75,
        "x" * 300,
        "",
        " " * 200,
    ],
)
def test_a_caption_is_too_long_exactly_when_its_tokens_are_too_many(caption):
    count = token_counter(STARTER)

    assert is_too_long(caption, count) is (count(caption) > 77)


@pytest.mark.parametrize(
    ("caption", "is_named"),
    [
        ("a photo of Ohwx, smiling", True),
        ("ohwx", True),
        ("a photo of ohwxes", False),
        ("a photo", False),
        ("(ohwx)", True),
    ],
)
def test_a_trigger_word_is_a_word(caption, is_named):
    assert names(caption, "ohwx") is is_named


def test_a_trigger_word_is_no_pattern():
    assert names("by sk(s", "sk(s")
    assert not names("by sks", "s.s")
