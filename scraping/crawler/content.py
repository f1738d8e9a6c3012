"""What is found in a page: the result of extraction."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST_CAPTION = 1_000
_UNWRITABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
"""Controls and halves of characters: JSON can spell them, databases and terminals choke on them."""

MOST_CAPTIONS = 8


class Caption(NamedTuple):
    """Words that a page has for a picture, and where they stood: ``alt``, ``title``, ``figcaption`` and so on."""

    text: str
    origin: str


@dataclass(slots=True)
class FoundPicture:
    """A picture that a page refers to."""

    url: str
    origin: str
    """Where: ``img``, ``link``, ``meta``, ``css`` and so on."""
    captions: list[Caption] = field(default_factory=list)
    licence: str = ""


@dataclass
class Content:
    """All that a page holds for a crawl."""

    pictures: dict[str, FoundPicture] = field(default_factory=dict)
    """By address, in the order in which they stand."""
    links: dict[str, None] = field(default_factory=dict)
    """Addresses of other pages, each once."""
    opt_out: str = ""
    """Which of its elements says that its pictures are not for machines to learn from; empty: none."""
    may_follow: bool = True
    licence: str = ""
    """The address of the licence that the page states for all of it."""

    def add(self, url: str, origin: str, *captions: Caption | None, licence: str = "") -> None:
        """Note a picture; one that is there already learns the captions it does not have."""
        if not url:
            return
        picture = self.pictures.get(url)
        if picture is None:
            picture = self.pictures[url] = FoundPicture(url, origin)
        picture.licence = picture.licence or licence
        for caption in captions:
            if caption and caption not in picture.captions and len(picture.captions) < MOST_CAPTIONS:
                picture.captions.append(caption)


def caption(text: str | None, origin: str) -> Caption | None:
    """Return a caption in one line, or None if there is nothing in it."""
    if not text:
        return None
    if len(text) > 4 * LONGEST_CAPTION:
        text = text[: 4 * LONGEST_CAPTION]
    line = " ".join(_UNWRITABLE.sub(" ", text).split())[:LONGEST_CAPTION]
    return Caption(line, origin) if line else None
