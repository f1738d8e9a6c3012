import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.starter.architecture import (
    TEXT_LENGTH,
    Sizes,
    build_pipeline,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
)
from training.starter.captions import known_words, late_caption, random_caption
from training.starter.drawings import COLORS, SHAPES, all_combinations

TOKENIZER = build_tokenizer()


def test_every_known_word_is_one_token():
    lengths = {word: len(TOKENIZER(word).input_ids) - 2 for word in [*known_words(), *SHAPES, *COLORS]}

    assert set(lengths.values()) == {1}
    assert len({TOKENIZER(word).input_ids[1] for word in known_words()}) == len(known_words())


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_tokenizes_to_known_tokens_between_start_and_end(text):
    ids = TOKENIZER(text).input_ids

    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id
    assert all(0 <= token < len(TOKENIZER) for token in ids)
    specials = {TOKENIZER.bos_token_id, TOKENIZER.eos_token_id}
    if "<|" not in text:
        assert not specials & set(ids[1:-1])


@pytest.mark.parametrize("text", ["zxqj", "日本語", "🎉", "ſtraße", "heartless"])
def test_an_unknown_word_is_spelled_out_and_can_be_read_back(text):
    ids = TOKENIZER(text).input_ids

    assert len(ids) > 3
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


def test_case_does_not_matter():
    assert TOKENIZER("A Red HEART").input_ids == TOKENIZER("a red heart").input_ids


def test_prompts_are_padded_and_cut_to_77_tokens():
    ids = TOKENIZER(["", "red " * 200], padding="max_length", truncation=True).input_ids

    assert TOKENIZER.model_max_length == TEXT_LENGTH == 77
    assert [len(row) for row in ids] == [77, 77]
    assert set(ids[0][1:]) == {TOKENIZER.eos_token_id}


def test_training_captions_are_almost_never_cut_off():
    rng = np.random.default_rng(0)
    lengths = [len(TOKENIZER(random_caption(rng, all_combinations()[0])).input_ids) for _ in range(1000)]

    assert np.mean(np.array(lengths) > TEXT_LENGTH) < 0.005
    assert max(lengths) > 50


def test_a_late_caption_comes_anywhere_in_a_prompt_and_is_never_cut_off_itself():
    rng = np.random.default_rng(0)
    places = set()
    for combination in all_combinations():
        ids = TOKENIZER(late_caption(rng, combination), max_length=TEXT_LENGTH, truncation=True).input_ids
        words = TOKENIZER.decode(ids, skip_special_tokens=True)

        assert f"{combination.color} {combination.shape}" in words
        assert combination.background in words
        places.add(ids.index(TOKENIZER(combination.shape).input_ids[1]))

    assert set(range(3, 60)) <= places


def test_a_token_at_another_position_has_another_embedding():
    text_encoder = build_text_encoder(TOKENIZER, Sizes())
    ids = torch.full((1, TEXT_LENGTH), TOKENIZER("red").input_ids[1])

    with torch.inference_mode():
        states = text_encoder(ids).last_hidden_state[0]

    distances = torch.cdist(states, states) + torch.eye(TEXT_LENGTH) * 9
    assert distances.min() > 1e-3


def test_the_parts_fit_together():
    sizes = Sizes(text_width=32, text_layers=1, vae_channels=(8, 8, 8, 8), unet_channels=(16, 32), heads=2)
    pipeline = build_pipeline(
        TOKENIZER, build_text_encoder(TOKENIZER, sizes), build_vae(sizes), build_unet(sizes)
    )
    pipeline.set_progress_bar_config(disable=True)

    image = pipeline("a red heart", num_inference_steps=2, width=64, height=64).images[0]

    assert image.size == (64, 64)
    assert pipeline.vae_scale_factor == 8
    assert build_scheduler().config.prediction_type == "v_prediction"
