"""What can be told of captions before a model reads them: how long they are, and whether they name the subject."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

MOST_TOKENS = 77
"""A text encoder of CLIP reads so many, the one that begins and the one that ends a text among them."""

PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+", re.IGNORECASE)
"""Where CLIP's tokenizer cuts before it looks at its words (openai/CLIP, simple_tokenizer.py)."""

CountTokens = Callable[[str], int]
"""Takes a caption and returns how many tokens it has."""


def fewest_tokens(caption: str) -> int:
    """Return how many tokens a caption has at least, for any tokenizer of CLIP: rare words have more than one."""
    return 2 + len(PIECES.findall(caption))


def token_counter(model: Path | None) -> CountTokens:
    """Return what counts the tokens of captions for a model in diffusers layout.

    Exactly, where its tokenizer lies there as ``tokenizer.json`` or as a vocabulary with its merges, and can be read;
    otherwise as :func:`fewest_tokens` does.

    Args:
        model: its folder; None where there is none on this machine.
    """
    found = _exact_counter(model) if model is not None else None
    return found or fewest_tokens


def is_too_long(caption: str, count: CountTokens) -> bool:
    """Tell whether a caption has more tokens than are read. No token is shorter than a byte: most need no counting."""
    cleaned = unicodedata.normalize("NFC", caption).lower()  # as a tokenizer does first
    return len(cleaned.encode()) > MOST_TOKENS - 2 and count(caption) > MOST_TOKENS


def names(caption: str, trigger_word: str) -> bool:
    """Tell whether the trigger word stands in a caption, as a word of its own, in whatever case."""
    return bool(re.search(rf"(?<!\w){re.escape(trigger_word)}(?!\w)", caption, re.IGNORECASE))


def _exact_counter(model: Path) -> CountTokens | None:
    whole, vocabulary = model / "tokenizer" / "tokenizer.json", model / "tokenizer" / "vocab.json"
    try:
        file = whole if whole.is_file() else vocabulary
        return _read_counter(file, file.stat().st_mtime_ns)
    except Exception:  # noqa: BLE001 - its parsers raise Exception itself; then nothing is known exactly
        return None


@lru_cache(maxsize=8)
def _read_counter(file: Path, changed_at: int) -> CountTokens:
    # Part of the deep-learning stack, without which a web server runs as well.
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if file.name == "tokenizer.json":
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    else:
        words = models.BPE.from_file(str(file), str(file.with_name("merges.txt")), end_of_word_suffix="</w>")
        tokenizer = Tokenizer(words)
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(
                    Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"),
                    "removed",
                    invert=True,
                ),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    return lambda caption: 2 + len(tokenizer.encode(caption, add_special_tokens=False).ids)
