"""Sets for tests."""

from albums.models import Album


def deck(**fields):
    """Return an unsaved set of two cards."""
    values = {
        "name": "a deck",
        "is_set_template": True,
        "set_rows": [{"value": "Ace", "suit": "Hearts"}, {"value": "King", "suit": "Spades"}],
        "base_prompt": "a playing card",
        "prompt_template": "{value} of {suit}",
        "style_suffix": "clean edges",
        "example_theme": "woodcut",
    }
    return Album(**(values | fields))


def pointers(error):
    """Return where an error says that something is wrong, and what."""
    return [(fault.pointer, fault.code) for fault in error.faults]
