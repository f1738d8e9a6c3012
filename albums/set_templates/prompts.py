"""How one prompt is put together. Plain text throughout: nothing here is a format string."""

import re
from collections.abc import Mapping

from albums.models import Album

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
"""A name in braces. Any other brace is a character like all others."""

SEPARATOR = ". "


def placeholders(template: str) -> list[str]:
    """Return the columns that a template asks for, each once, in the order in which they first stand there."""
    return list(dict.fromkeys(PLACEHOLDER.findall(template)))


def fill_in(template: str, row: Mapping[str, str]) -> str:
    """Put the cells of a row in the places of their columns, once: braces in a cell stay what they are.

    Raises:
        KeyError: the row lacks a column.
    """
    return PLACEHOLDER.sub(lambda found: row[found[1]], template)


def compose_prompt(album: Album, row: Mapping[str, str], theme: str) -> str:
    """Return the prompt of one picture: the parts that say something, in their order.

    Raises:
        KeyError: the row lacks a column that the template asks for.
    """
    style = f"Art style: {theme.strip()}" if theme.strip() else ""
    parts = (album.base_prompt, style, fill_in(album.prompt_template, row), album.style_suffix)
    return SEPARATOR.join(part.strip() for part in parts if part.strip())
