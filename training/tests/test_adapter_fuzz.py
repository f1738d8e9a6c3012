"""Whatever names, shapes and metadata a sound file has: it is recognised or refused, and nothing else happens."""

import json
import math

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from training.tests.weight_headers import write_header
from training.weights import WeightsRefused, read_header, recognise_adapter
from training.weights.adapters import LONGEST_NAME, LONGEST_TRIGGER_WORD, MOST_TRIGGER_WORDS, SCALARS

PREFIXES = [
    "lora_unet_",
    "lora_te_",
    "lora_te2_",
    "unet.",
    "text_encoder.",
    "transformer.",
    "base_model.model.",
    "",
]
LAYERS = [
    "down_blocks_0_attn2_to_k",
    "down_blocks.0.attn2.to_k",
    "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    "mid_block.attn1.processor.to_q",
    "single_transformer_blocks.0.attn.to_q",
    "joint_blocks_0_x",
    "text_model.encoder.layers.0.mlp.fc1",
    "transformer_blocks",
]
ENDINGS = [
    ".lora_down.weight",
    ".lora_up.weight",
    ".alpha",
    ".lora_A.weight",
    ".lora_B.weight",
    "_lora.up.weight",
    ".lora.down.weight",
    ".bias",
]
NAMES = st.builds("".join, st.tuples(*map(st.sampled_from, (PREFIXES, LAYERS, ENDINGS)))) | st.text(
    max_size=20
)
# Together they stay below 16 TiB, the largest file of ext4.
SHAPES = (
    st.lists(st.sampled_from([0, 1, 4, 768, 2048]), max_size=4)
    .map(tuple)
    .filter(lambda shape: math.prod(shape) < 2**39)
)
JSON = st.recursive(
    st.none() | st.integers(-5, 5) | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
SAID = st.dictionaries(
    st.sampled_from(["unet.lora_alpha", "unet.alpha_pattern", "transformer.lora_alpha"]), JSON, max_size=3
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "lora_adapter_metadata": SAID.map(json.dumps) | st.text(max_size=10),
        "ss_tag_frequency": st.dictionaries(st.text(max_size=3), JSON, max_size=3).map(json.dumps),
        "modelspec.trigger_phrase": st.text(max_size=300),
        "modelspec.title": st.text(max_size=300),
        "modelspec.architecture": st.sampled_from(["flux-1-dev/lora", "stable-diffusion-v1/lora", "x"]),
        "ss_sd_model_name": st.text(max_size=300),
    },
)
PAIR = {
    "unet.down_blocks.0.attn2.to_k.lora_A.weight": (4, 768),
    "unet.down_blocks.0.attn2.to_k.lora_B.weight": (1, 4),
}


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shapes=st.dictionaries(NAMES, SHAPES, max_size=6), metadata=METADATA)
@example(shapes=PAIR, metadata={"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 10**400})})
@example(shapes=PAIR, metadata={"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": [1]})})
@example(shapes=PAIR, metadata={"modelspec.trigger_phrase": "\ud800\x00,\u202ea"})
def test_any_sound_file_is_recognised_or_refused(tmp_path, shapes, metadata):
    path = write_header(tmp_path / "a.safetensors", shapes, metadata)

    facts, refused_for = None, ""
    try:
        facts = recognise_adapter(read_header(path, scalars_ending=SCALARS))
    except WeightsRefused as refusal:
        refused_for = str(refusal)

    assert refused_for.isprintable()
    if facts is None:
        assert refused_for
        return
    assert len(facts.title) <= LONGEST_NAME
    assert len(facts.trigger_words) <= MOST_TRIGGER_WORDS
    assert all(0 < len(word) <= LONGEST_TRIGGER_WORD and word.isprintable() for word in facts.trigger_words)
    assert facts.rank >= 1
    assert sum(facts.targets.values()) == len(facts.layers)
