"""Pictures in JSON-LD: data that pages hold for search engines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_NODES = 5_000

CAPTION_KEYS = ("caption", "description", "name")
LICENCE_KEYS = ("license", "acquireLicensePage")


@dataclass(frozen=True)
class StructuredPicture:
    """A picture as a page describes it; what it does not say is empty."""

    reference: str
    caption: str = ""
    licence: str = ""


def pictures(text: str) -> Iterator[StructuredPicture]:
    """Yield the pictures that a block of JSON-LD names. A block that is too large or no JSON names none."""
    if len(text) > MAX_BYTES:
        return
    try:
        content = json.loads(text.strip().removeprefix("<!--").removesuffix("-->"), strict=False)
    except (ValueError, RecursionError):
        return
    waiting: list[tuple[Any, int, bool]] = [(content, 0, False)]
    for _ in range(MAX_NODES):
        if not waiting:
            return
        node, depth, is_picture = waiting.pop()
        if isinstance(node, str):
            if is_picture:
                yield StructuredPicture(node)
        elif isinstance(node, list) and depth < MAX_DEPTH:
            waiting += [(entry, depth + 1, is_picture) for entry in reversed(node)]
        elif isinstance(node, dict) and depth < MAX_DEPTH:
            if is_picture or "ImageObject" in _texts(node.get("@type")):
                yield from _described(node)
                node = {key: value for key, value in node.items() if key not in ("image", "thumbnail")}
            waiting += [
                (value, depth + 1, key == "image")
                for key, value in reversed(node.items())
                if isinstance(value, dict | list) or (key == "image" and isinstance(value, str))
            ]


def _described(node: dict[str, Any]) -> Iterator[StructuredPicture]:
    references = _texts(node.get("contentUrl")) or _texts(node.get("url")) or _texts(node.get("thumbnailUrl"))
    caption = next((text for key in CAPTION_KEYS for text in _texts(node.get(key))), "")
    licence = next((text for key in LICENCE_KEYS for text in _texts(node.get(key))), "")
    for reference in references[:1]:
        yield StructuredPicture(reference, caption, licence)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text]
