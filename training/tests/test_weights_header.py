"""The header of a file from strangers: whatever stands there is read soundly, or refused, and nothing is loaded."""

import json
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.tests.weight_headers import write_header
from training.weights import DamagedWeights, header, read_header

SOUND = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def write(path, described, *, behind=24, length=None):
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(behind))
    return path


def test_reads_what_safetensors_writes(tmp_path):
    tensors = {
        "w": torch.ones(2, 3),
        "half": torch.ones(4, dtype=torch.float16),
        "x.alpha": torch.tensor(2.5),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"made": "here"})

    found = read_header(tmp_path / "a.safetensors", scalars_ending=".alpha")

    assert found.metadata == {"made": "here"}
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        "w": (2, 3),
        "half": (4,),
        "x.alpha": (),
    }
    assert found.scalars == {"x.alpha": 2.5}
    assert found.size_bytes == (tmp_path / "a.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_reads_single_numbers_of_every_type(tmp_path, dtype):
    save_file({"a": torch.zeros(3), "b.alpha": torch.tensor([4], dtype=dtype)}, tmp_path / "a.safetensors")

    assert read_header(tmp_path / "a.safetensors", scalars_ending=".alpha").scalars == {"b.alpha": 4.0}


@pytest.mark.parametrize(
    "described",
    [
        b"",
        b"{",
        b"[]",
        b" {}",
        b"{}",  # 24 bytes lie behind it
        b"\xff\xfe",
        b'{"a": ' + b"[" * 100_000,
        b'{"a": NaN}',
        b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 24]}}',
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 24]}}',
        b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},'
        b' "a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}',
        {"a": None},
        {"a": {}},
        {"a": SOUND["a"] | {"more": 1}},
        {"a" * 501: SOUND["a"]},
        {"a": SOUND["a"] | {"dtype": "F31"}},
        {"a": SOUND["a"] | {"dtype": ["F32"]}},
        {"a": SOUND["a"] | {"shape": [-2, -3]}},
        {"a": SOUND["a"] | {"shape": [True, 6]}},
        {"a": SOUND["a"] | {"shape": [6.0]}},
        {"a": SOUND["a"] | {"shape": "6"}},
        {"a": SOUND["a"] | {"shape": [1] * 9}},
        {"a": SOUND["a"] | {"shape": [2**47, 2**47]}},
        {"a": SOUND["a"] | {"data_offsets": [0, 20]}},
        {"a": SOUND["a"] | {"data_offsets": [24, 0]}},
        {"a": SOUND["a"] | {"data_offsets": [0]}},
        {"a": SOUND["a"] | {"data_offsets": [1, 25]}},  # behind the end
        {"a": {"dtype": "F32", "shape": [5], "data_offsets": [4, 24]}},  # a gap
        {"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}},  # nothing names the last bytes
        SOUND | {"b": SOUND["a"]},  # one over the other
        SOUND | {"__metadata__": []},
        SOUND | {"__metadata__": {"a": 1}},
        SOUND | {"__metadata__": {"a": {"b": "c"}}},
    ],
)
def test_an_unsound_header_is_refused(tmp_path, described):
    with pytest.raises(DamagedWeights):
        read_header(write(tmp_path / "a.safetensors", described))


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 10_000])
def test_a_length_that_cannot_be_is_refused_before_anything_is_read(tmp_path, length):
    with pytest.raises(DamagedWeights):
        read_header(write(tmp_path / "a.safetensors", SOUND, length=length))


def test_limits_hold(tmp_path, monkeypatch):
    path = write_header(tmp_path / "a.safetensors", {f"t{n}": (1,) for n in range(11)}, {"a": "b" * 100})
    read_header(path)

    for name, limit in (("MAX_HEADER_BYTES", 200), ("MAX_TENSORS", 10), ("MAX_METADATA_BYTES", 50)):
        with monkeypatch.context() as patch, pytest.raises(DamagedWeights, match="more than"):
            patch.setattr(header, name, limit)
            read_header(path)


def test_only_regular_files_are_opened(tmp_path):
    sound = write(tmp_path / "a.safetensors", SOUND)
    (tmp_path / "link.safetensors").symlink_to(sound)
    os.mkfifo(tmp_path / "pipe.safetensors")

    for name in ("link.safetensors", "pipe.safetensors", ""):
        with pytest.raises((DamagedWeights, IsADirectoryError)):
            read_header(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "nothing.safetensors")


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    data = write(tmp_path / "a.safetensors", SOUND).read_bytes()
    path = tmp_path / "b.safetensors"

    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(DamagedWeights):
            read_header(path)


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers(-10, 2**70) | st.floats() | st.text(max_size=5)
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
NEARLY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "F4", "X"]) | NESTED,
        "shape": st.lists(st.integers(-1, 7), max_size=4) | NESTED,
        "data_offsets": st.lists(st.integers(-1, 30), min_size=2, max_size=2) | NESTED,
    }
)


def agrees_with_safetensors(path):
    """Check that a file is refused, or read as the library that loads it reads it."""
    try:
        ours = read_header(path)
    except DamagedWeights:
        return
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        raise AssertionError("read here, and refused by safetensors") from None
    assert {name: tensor.shape for name, tensor in ours.tensors.items()} == shapes


@FUZZ
@given(described=st.dictionaries(st.text(max_size=8) | st.just("__metadata__"), NEARLY | NESTED, max_size=4))
def test_any_header_is_refused_or_read_as_safetensors_reads_it(tmp_path, described):
    agrees_with_safetensors(write(tmp_path / "a.safetensors", described))


@FUZZ
@given(place=st.integers(0, 120), value=st.integers(0, 255))
def test_a_byte_that_is_flipped_is_refused_or_read_as_safetensors_reads_it(tmp_path, place, value):
    data = bytearray(write(tmp_path / "a.safetensors", SOUND | {"__metadata__": {"a": "b"}}).read_bytes())
    data[place % len(data)] = value
    (tmp_path / "b.safetensors").write_bytes(data)

    agrees_with_safetensors(tmp_path / "b.safetensors")


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_as_safetensors_reads_them(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)

    agrees_with_safetensors(path)
