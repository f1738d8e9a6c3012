"""What counts as a word, the same for what is said about images and for what people search for.

Both databases index the words that are found here and split nothing by themselves, so they find the same.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Self

LONGEST_WORD = 60
LONGEST_DOCUMENT = 100_000
LONGEST_SEARCH = 500
MOST_TERMS = 20

_ASCII_WORD = re.compile("[a-z0-9]+")
_TERM = re.compile(r'(-?)(?:"([^"]*)("?)|([^\s"]+))(\*?)')
# Chinese and Japanese are written without spaces: each of their characters is a word.
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")


def words_of(text: str) -> list[str]:
    """Return the words of a text, without case, accents and punctuation."""
    if not text.isascii():
        text = _without_accents(_without_accents(text).casefold())
        text = _IDEOGRAPH.sub(r" \g<0> ", text)
        text = "".join(char if _is_of_a_word(char) else " " for char in text)
        return [word[:LONGEST_WORD] for word in text.split()]
    return [word[:LONGEST_WORD] for word in _ASCII_WORD.findall(text.lower())]


def document_of(*texts: str) -> str:
    """Return all words of some texts, each between spaces: also the first and the last, so that phrases are found."""
    document = " ".join(word for text in texts for word in words_of(text))[:LONGEST_DOCUMENT]
    return f" {document} " if document else ""


class SearchTooLong(ValueError):
    """A search of more than anybody types. Its text says how much there may be."""


@dataclass(frozen=True)
class Term:
    """One word, or some in a row; the last one may be only a beginning."""

    words: tuple[str, ...]
    is_prefix: bool = False
    is_excluded: bool = False

    @property
    def phrase(self) -> str:
        """How it stands in a document."""
        return f" {' '.join(self.words)}{'' if self.is_prefix else ' '}"


@dataclass(frozen=True)
class Search:
    """What somebody looks for: every term has to be there, and none of the excluded ones."""

    terms: tuple[Term, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``red "ace of spades" -joker water*``. Every text means something; what holds no word finds nothing.

        Raises:
            SearchTooLong: more than 500 characters or 20 terms.
        """
        if len(text) > LONGEST_SEARCH:
            raise SearchTooLong(f"A search has at most {LONGEST_SEARCH} characters.")
        terms = []
        for minus, quoted, _, plain, star in _TERM.findall(text):
            if words := words_of(quoted or plain):
                is_prefix = bool(star) or plain.endswith("*")
                terms.append(Term(tuple(words), is_prefix=is_prefix, is_excluded=bool(minus)))
        if sum(len(term.words) for term in terms) > MOST_TERMS:
            raise SearchTooLong(f"A search has at most {MOST_TERMS} words.")
        return cls(tuple(terms))

    @property
    def wanted(self) -> list[tuple[str, bool]]:
        """The words that have to be there, each with whether it is only a beginning."""
        return [
            (word, term.is_prefix and position == len(term.words))
            for term in self.terms
            if not term.is_excluded
            for position, word in enumerate(term.words, start=1)
        ]

    @property
    def phrases(self) -> list[str]:
        """The terms of several words, which have to stand in a row."""
        return [term.phrase for term in self.terms if len(term.words) > 1 and not term.is_excluded]

    @property
    def excluded(self) -> list[str]:
        return [term.phrase for term in self.terms if term.is_excluded]


def _is_of_a_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char).startswith("M")


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
