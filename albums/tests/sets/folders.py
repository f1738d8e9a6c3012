"""Folders of sets for tests, and what becomes of them."""

import json

from albums.set_templates.importing import import_sets

CARDS = """
card_deck:
  name: Card deck
  description: Three cards.
  csv_path: card_deck.csv
  base_prompt: a playing card
  prompt_template: "{value} of {suit}"
  style_suffix: clean edges
  example_theme: woodcut
  negative_prompt: text
  width: 512
  height: 720
"""
ROWS = "value, suit\nAce, Hearts\nKing, Spades\n Ten ,Clubs\n"


def entry(folder, **fields):
    """Write an index with one set of one card, with these fields."""
    values = {"prompt_template": "{card}"} | fields
    (folder / "config.yaml").write_text(json.dumps({"tarot": values}))
    if not (folder / "tarot.csv").exists():
        (folder / "tarot.csv").write_text("card\nThe Fool\n")


def run(folder, **options):
    """Import a folder; return the results by key."""
    return {item.key: item for item in import_sets(folder, **options)}


def outcomes(folder, **options):
    return {key: item.outcome.value for key, item in run(folder, **options).items()}


def reasons(folder):
    [item] = run(folder).values()
    assert item.outcome == "failed"
    return item.reasons
