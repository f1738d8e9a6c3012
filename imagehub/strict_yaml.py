"""YAML that people wrote for us, read so that it cannot do harm. Knows no settings."""

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

MAX_DEPTH = 20


def load_yaml(text: str) -> Any:
    """Return the plain data in a YAML text (1.2): no key stands twice, and nothing is repeated by an alias.

    The caller limits the length of the text.

    Raises:
        ValueError: it is no YAML, or more of it than a file of ours needs.
    """
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            # An alias can stand for another, and that for more: a short text for more than fits into memory.
            if isinstance(event, AliasEvent):
                raise ValueError("not valid YAML: aliases are not allowed here")
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:  # the time to parse grows with the square of the depth
                raise ValueError(f"not valid YAML: more than {MAX_DEPTH} levels")
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError) as error:
        raise ValueError(f"not valid YAML: {error}") from error
