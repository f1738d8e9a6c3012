import pytest

from albums.tests.sets.folders import CARDS, ROWS


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    return folder


@pytest.fixture
def cards(folder):
    (folder / "config.yaml").write_text(CARDS)
    (folder / "card_deck.csv").write_text(ROWS)
    return folder
