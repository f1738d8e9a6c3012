"""The header of a .safetensors file, read from strangers: names, shapes and metadata of its tensors, and no weights.

A file is eight bytes with the length of its header, the header as JSON, and the bytes of the tensors one behind the
other. All of it is checked here against limits before anything is believed.
"""

import errno
import json
import math
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 8 * 1024 * 1024
"""The header of a whole Stable Diffusion XL has 0.4 MB; adapters with the tags of a large data set have a few.

The worst that was found to fit in here, a million names, costs a second and 100 MB before it is refused.
"""
MAX_TENSORS = 50_000
MAX_METADATA_BYTES = 4 * 1024 * 1024
MAX_NAME_LENGTH = 500
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**48

LENGTH_BYTES = 8
METADATA = "__metadata__"
FIELDS = frozenset({"dtype", "shape", "data_offsets"})

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip
"""Bits of one element, by the names of the format."""

UNPACK = {"F16": "<e", "F32": "<f", "F64": "<d"}


class WeightsRefused(Exception):
    """A file is not taken. The text is for the person who sent it, and says nothing of where the file lies."""

    code = "unsupported_weights"


class DamagedWeights(WeightsRefused):
    """It is no .safetensors file, a damaged one, or one beyond the limits."""

    code = "damaged_weights"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its type, its shape, and its bytes, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What stands in front of the weights."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    size_bytes: int
    """Of the whole file."""
    scalars: dict[str, float] = field(default_factory=dict)
    """The values of single numbers that were asked for, by the names of their tensors."""


def read_header(path: Path, *, scalars_ending: str = "") -> Header:
    """Read and check the header of a file.

    Args:
        path: where it lies. Links are not followed: whoever trusts one resolves it first.
        scalars_ending: tensors with one element and a name that ends so are read as well.

    Raises:
        DamagedWeights: it is no sound .safetensors file, or too large to be one of ours.
        FileNotFoundError: there is no such file.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = _header_length(file, size)
        raw = file.read(length)
        if len(raw) != length:
            raise DamagedWeights("The file ends within its header.")
        names = _parse(raw)
        metadata = _metadata(names.pop(METADATA, {}))
        if len(names) > MAX_TENSORS:
            raise DamagedWeights(f"The file has more than {MAX_TENSORS:,} tensors.")
        tensors = {name: _tensor(name, value) for name, value in names.items()}
        start = LENGTH_BYTES + length
        _check_offsets(tensors, size - start)
        scalars = _scalars(file, start, tensors, scalars_ending) if scalars_ending else {}
    return Header(tensors, metadata, size, scalars)


def parse_finite_json(text: str | bytes) -> Any:
    """Parse JSON of strangers: no NaN, no name twice in one object, no nesting without end.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("too deep") from error


def _open_regular(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedWeights("It is a link, and links are not followed.") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedWeights("It is no regular file.")
    return os.fdopen(descriptor, "rb")


def _header_length(file: BinaryIO, size: int) -> int:
    prefix = file.read(LENGTH_BYTES)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < LENGTH_BYTES or not 2 <= length <= size - LENGTH_BYTES:
        raise DamagedWeights("This is no .safetensors file.")
    if length > MAX_HEADER_BYTES:
        raise DamagedWeights(f"The header of the file has more than {MAX_HEADER_BYTES:,} bytes.")
    return length


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise DamagedWeights("This is no .safetensors file.")
    try:
        _check_depth(raw)
        names = parse_finite_json(raw.decode())
    except ValueError as error:
        raise DamagedWeights("The header of the file is no valid JSON, or names a tensor twice.") from error
    if not isinstance(names, dict):
        raise DamagedWeights("The header of the file is no object.")
    return names


def _check_depth(raw: bytes) -> None:
    """Refuse what opens more than it could: a header of nothing but brackets would fill memory before it is parsed."""
    # A tensor opens an object and two lists; brackets in names and metadata count as well, hence the generous bound.
    if raw.count(b"[") + raw.count(b"{") > 3 * MAX_TENSORS + MAX_METADATA_BYTES // 8:
        raise ValueError("too many objects")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands there twice")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DamagedWeights("The metadata of the file is no object of strings.")
    if sum(len(name) + len(text) for name, text in value.items()) > MAX_METADATA_BYTES:
        raise DamagedWeights(f"The metadata of the file has more than {MAX_METADATA_BYTES:,} characters.")
    return value


def _tensor(name: str, value: Any) -> Tensor:
    if len(name) > MAX_NAME_LENGTH or not isinstance(value, dict) or value.keys() != FIELDS:
        raise DamagedWeights("The header of the file describes a tensor in no known way.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise DamagedWeights("A tensor of the file has no known type.")
    if not _is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise DamagedWeights("A tensor of the file has no possible shape.")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise DamagedWeights("A tensor of the file lies nowhere.")
    elements = math.prod(shape)
    if elements > MAX_ELEMENTS or elements * BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise DamagedWeights("A tensor of the file has another size than its shape says.")
    return Tensor(dtype, tuple(shape), *offsets)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= MAX_ELEMENTS for size in value)


def _check_offsets(tensors: dict[str, Tensor], length: int) -> None:
    """Check that the tensors fill all behind the header, without gap and without lying over each other."""
    position = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != position:
            raise DamagedWeights("The tensors of the file overlap, or leave gaps.")
        position = tensor.stop
    if position != length:
        raise DamagedWeights("The file is longer or shorter than its header says.")


def _scalars(file: BinaryIO, start: int, tensors: dict[str, Tensor], ending: str) -> dict[str, float]:
    wanted = {
        name: tensor
        for name, tensor in tensors.items()
        if name.endswith(ending) and math.prod(tensor.shape) == 1
    }
    values = {}
    for name, tensor in sorted(wanted.items(), key=lambda item: item[1].start):
        raw = os.pread(file.fileno(), tensor.stop - tensor.start, start + tensor.start)
        values[name] = _number(raw, tensor.dtype)
    return values


def _number(raw: bytes, dtype: str) -> float:
    """Return a single number; what is none that we know counts as NaN."""
    if dtype == "BF16":  # the upper half of a float32
        raw, dtype = b"\0\0" + raw, "F32"
    if dtype in UNPACK and len(raw) == struct.calcsize(UNPACK[dtype]):
        return struct.unpack(UNPACK[dtype], raw)[0]
    if dtype.startswith(("I", "U")):
        return float(int.from_bytes(raw, "little", signed=dtype.startswith("I")))
    return math.nan
