"""Sets for the tests of generation."""

from albums.models import Album
from albums.services import create_album
from imagehub.tests.canaries import CANARY

THEME = f"paper cutout, {CANARY}"
ROWS = [
    {"name": "Ace", "what": "a red heart on a white background"},
    {"name": "Two", "what": "a blue star on a black background"},
    {"name": "Three", "what": "a green circle on a white background"},
]


def make_deck(rows=ROWS, **fields) -> Album:
    """Return a saved set of three small pictures."""
    values = {
        "name": "a deck",
        "is_set_template": True,
        "set_rows": list(rows),
        "base_prompt": f"a playing card, {CANARY}",
        "prompt_template": "{what}",
        "style_suffix": "simple",
        "negative_prompt": f"a blur, {CANARY}",
        "width": 64,
        "height": 64,
    }
    return create_album(Album(**(values | fields)))


def many_rows(number: int) -> list[dict[str, str]]:
    return [{"name": f"card {index}", "what": f"a red heart number {index}"} for index in range(number)]
