"""Damaged pictures, all the way through a decoder: refused or taken, but never an accident, and never for long."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albums.decoding import PictureRefused
from albums.tests.decoding.samples import opened
from albums.tests.decoding.test_structure import ORIGINALS, mutated


@pytest.mark.parametrize("original", ORIGINALS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damage_of_any_kind_is_refused_or_taken(take, original, data):
    damaged = mutated(original, data)
    try:
        kept = take(damaged, thumbnail_size=24)
    except PictureRefused as refusal:
        code = refusal.code
    else:
        code = ""
    assert code not in ("decoder_timeout", "decoder_unavailable", "decoder_crashed")
    if code:
        return
    picture = opened(kept.path.read_bytes())
    assert picture.size == (kept.width, kept.height)
