"""Captions for the drawings, and the words that the starter model's tokenizer knows whole.

No torch and no Django here. All randomness comes from the NumPy generator that the caller passes in.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.starter.drawings import COLORS, SHAPES, Combination


def _read_words(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").split()


# In every template the color comes right before what it colors. That is how people write, and it is
# what lets a two-layer text encoder bind two colors to the right things at any position in a prompt.
TEMPLATES = (
    "{a_color} {shape} on {a_background} background",
    "{color} {shape} on {background}",
    "{a_color} {shape} on {background}",
    "{color} {shape} on {a_background} background",
    "{color} {shape}, {background} background",
    "{a_color} {shape} with {a_background} background",
    "{a_color} {shape} in front of {a_background} background",
    "the {color} {shape} on the {background} background",
    "one {color} {shape} on a plain {background} background",
    "a picture of {a_color} {shape} on {a_background} background",
    "a drawing of {a_color} {shape} on {a_background} background",
    "an image of {a_color} {shape}, {background} background",
    "a simple {color} {shape} on a solid {background} background",
    "on {a_background} background, {a_color} {shape}",
    "{background} background, {color} {shape}",
)

# What set templates put around a row's prompt: "<base>. Art style: <theme>. <row>. <suffix>".
BASES = (
    "playing card",
    "a playing card",
    "trading card",
    "tarot card",
    "game card design",
    "card illustration",
    "sticker",
    "app icon",
    "logo",
    "poster",
    "postage stamp",
    "a single playing card, front view",
    "card game artwork",
    "icon for a mobile game",
    "digital illustration",
)
SUFFIXES = (
    "simple",
    "minimal",
    "centered",
    "high quality",
    "clean lines",
    "flat design",
    "sharp edges",
    "highly detailed",
    "masterpiece, best quality",
    "no text",
    "vector art",
    "4k",
    "plain and clear",
    "studio quality, sharp focus",
    "trending, award winning",
)

STYLE_WORDS = _read_words("style_words.txt")
# Words a person may type that no caption holds. Their embeddings stay as initialized, so they barely steer.
_OTHER_WORDS = _read_words("other_words.txt")
LATEST_TOKEN = 60
"""Up to here a caption may be put off: the longest one still fits before the end of a prompt, at 77."""

_PUNCTUATION = (".", ",", ":", ";", "-", "!", "?", "(", ")", "'", '"', "&", "/", "%", "+")


def known_words() -> list[str]:
    """List the words and signs that are one token each, sorted."""
    phrases = " ".join((*TEMPLATES, *BASES, *SUFFIXES)).replace(",", " ")
    written = {word for word in phrases.split() if word.isalpha()}
    return sorted({*SHAPES, *COLORS, "a", "an", *written, *STYLE_WORDS, *_OTHER_WORDS, *_PUNCTUATION})


def plain_caption(combination: Combination) -> str:
    """Return the plain form, such as "a red heart on a white background"."""
    return _fill(TEMPLATES[0], combination, article=_article)


def random_caption(rng: np.random.Generator, combination: Combination) -> str:
    """Return one of many ways to ask for a combination; a third are plain, almost half sit in a longer prompt."""
    if rng.random() < 0.3:
        return plain_caption(combination)
    # Callers that fill "a {color}" into a template of their own write "a orange heart": some captions do too.
    article = (lambda word: f"a {word}") if rng.random() < 0.3 else _article
    caption = _fill(_choose(rng, TEMPLATES), combination, article=article)
    if rng.random() < 0.35:
        return caption
    before, after = _surroundings(rng)
    caption = (". " if rng.random() < 0.8 else ", ").join([*before, caption, *after])
    return caption.capitalize() if rng.random() < 0.5 else caption


def late_caption(rng: np.random.Generator, combination: Combination) -> str:
    """Return a caption that every other time stands as late in a prompt of 77 tokens as it can, or anywhere before."""
    if rng.random() < 0.5:
        return random_caption(rng, combination)
    caption = _fill(_choose(rng, TEMPLATES), combination, article=_article)
    separator = _choose(rng, (" ", ", "))
    # A word is one token, and so is the comma after it.
    count = max(1, int(rng.integers(1, LATEST_TOKEN)) // len(separator))
    words = separator.join(_choose(rng, STYLE_WORDS) for _ in range(count))
    return ". ".join([words, caption, _choose(rng, SUFFIXES)])


def _surroundings(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Draw the phrases before and after a caption; at most about 50 tokens in all, so that nothing is cut off."""
    before, after = [], []
    if rng.random() < 0.55:
        before.append(_choose(rng, BASES))
    if rng.random() < 0.65:
        sign = _choose(rng, ("Art style: ", "Art style: ", "art style: ", "style: ", ""))
        before.append(sign + _some_words(rng, most=4))
    if rng.random() < 0.2:
        before.append(_some_words(rng, most=20))
    if rng.random() < 0.5:
        after.append(_choose(rng, SUFFIXES))
    if rng.random() < 0.3:
        after.append(_some_words(rng, most=10))
    return before, after


def _some_words(rng: np.random.Generator, *, most: int) -> str:
    separator = _choose(rng, (" ", " ", ", "))
    return separator.join(_choose(rng, STYLE_WORDS) for _ in range(rng.integers(1, most + 1)))


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _fill(template: str, combination: Combination, *, article: Callable[[str], str]) -> str:
    return template.format(
        shape=combination.shape,
        color=combination.color,
        background=combination.background,
        a_color=article(combination.color),
        a_background=article(combination.background),
    )
