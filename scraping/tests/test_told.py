"""What a crawler may tell: it reads strangers' files, and may be theirs by now."""

import pytest
from pydantic import ValidationError

from scraping.models import ScrapeJob
from scraping.services.told import ToldFigures, told

SHA = "ab" * 32
SAVED = {
    "event": "item", "url": "https://gallery.example/1.png", "state": "saved", "at": 1_790_000_000.0, "sha256": SHA,
    "format": "png", "width": 3, "height": 2, "size_bytes": 100, "status": 200,
}  # fmt: skip
PAGE = {
    "event": "page",
    "url": "https://gallery.example/",
    "state": "visited",
    "at": 1_790_000_000.0,
    "depth": 1,
}


def test_what_makes_sense_becomes_a_row():
    end = told(
        SAVED
        | {"captions": [{"text": "An ace", "origin": "alt"}], "page_url": "https://www.gallery.example/"}
    )

    item = end.row(ScrapeJob(), 7)

    assert (item.state, item.position, item.file_name) == ("saved", 7, f"{SHA}.png")
    assert (item.domain, item.page_domain) == ("example.gallery", "example.gallery.www")
    assert item.captions == [{"text": "An ace", "origin": "alt"}]


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "review"},
        {"state": "review", "reason": "approved"},
        {"reason": "approved"},
        {"state": "eaten"},
        {"sha256": "/etc/passwd"},
        {"sha256": "../../secret"},
        {"sha256": ""},
        {"format": "gif"},
        {"format": "../png"},
        {"url": ""},
        {"url": "https://gallery.example/" + "a" * 20_000},
        {"url": "https://gallery.example/\x00"},
        {"page_url": "https://gallery.example/\ud800"},
        {"captions": [{"text": "\x00", "origin": "alt"}]},
        {"captions": [{"text": "a" * 3000, "origin": "alt"}]},
        {"captions": "none"},
        {"redirects": ["https://gallery.example/"] * 30},
        {"status": -5},
        {"status": 40_000},
        {"status": "two"},
        {"width": 2**40},
        {"width": -1},
        {"at": "now"},
        {"at": float("inf")},
        {"attempts": 10**9},
        {"duplicate_of": "x"},
        {"fingerprint": "zz"},
    ],
)  # fmt: skip
def test_what_makes_none_is_refused(changes):
    with pytest.raises(ValidationError):
        told(SAVED | changes)


@pytest.mark.parametrize(
    "changes", [{"state": "saved"}, {"depth": -1}, {"links_found": 2**33}, {"url": None}]
)
def test_the_same_of_pages(changes):
    with pytest.raises(ValidationError):
        told(PAGE | changes)


def test_other_events_tell_nothing_of_it():
    assert told({"event": "heartbeat"}) is None
    figures = told({"event": "progress", "counts": {"saved": 1}, "pages": {}, "found": 3, "pages_known": 2})
    assert isinstance(figures, ToldFigures)
    with pytest.raises(ValidationError):
        told({"event": "finished", "counts": {"saved": "many"}, "pages": {}, "found": 3})
