"""From a set and a theme to names and prompts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from albums.models import Album
from albums.set_templates.prompts import compose_prompt
from albums.set_templates.validation import NotASet, SetBroken, check_theme, validate_set_template
from imagehub.config import get_config
from imagehub.errors import Invalid

LONGEST_NAME = 150
NAMING_COLUMNS = ("name", "card", "sign")


@dataclass(frozen=True)
class RenderedItem:
    """One picture of a set: what it is called there, and the prompt that makes it."""

    name: str
    prompt: str


def render_set(album: Album, theme: str | None = None) -> list[RenderedItem]:
    """Return the pictures of a set in the order of its rows.

    The theme has 1 to 500 characters; without one it is the set's own example, and if that has none, the prompts
    name no style.

    Raises:
        Invalid: the theme is no good, or so long that a prompt no longer fits.
        NotASet: the album is no set template.
        SetBroken: what is stored is not valid, perhaps because a limit was lowered since.
    """
    if not album.is_set_template:
        raise NotASet("This album is no set template: it has no prompts to render.")
    style = album.example_theme if theme is None else check_theme(theme)
    try:
        validate_set_template(album)
    except Invalid as error:
        fault = error.faults[0]
        raise SetBroken(f"The set template is not valid ({fault.pointer}): {fault.detail}") from error
    prompts = [compose_prompt(album, row, style) for row in album.set_rows]
    _check_lengths(prompts)
    names = unique_names(item_name(row) for row in album.set_rows)
    return [RenderedItem(name, prompt) for name, prompt in zip(names, prompts, strict=True)]


Check = Callable[[Album], object]
"""Raises where what a set names cannot be had."""

_checks: list[Check] = []


def register_check(check: Check) -> None:
    """Let a check be asked before a set is shown as it would be made. Asked twice, it is registered once."""
    if check not in _checks:
        _checks.append(check)


def preview_set(album: Album, theme: str | None = None) -> list[RenderedItem]:
    """Return the pictures of a set as :func:`render_set` does, if it can be made as it stands.

    Apps further up own what a set names besides, such as adapters, and have said how to check that.

    Raises:
        Invalid, NotASet, SetBroken: see :func:`render_set`.
        NotReady: something that the set names is not there, or may not be used.
    """
    items = render_set(album, theme)
    for check in _checks:
        check(album)
    return items


def item_name(row: Mapping[str, str]) -> str:
    """Return what a row calls its picture: a card by value and suit, anything else by name, or by its first cell."""
    value, suit = (row.get(column, "").strip() for column in ("value", "suit"))
    if value and suit:
        return f"{value}_of_{suit}"[:LONGEST_NAME]
    first = next(iter(row.values()), "")
    candidates = (*(row.get(column, "") for column in NAMING_COLUMNS), first)
    return next((cell.strip()[:LONGEST_NAME] for cell in candidates if cell.strip()), "item")


def unique_names(names: Iterable[str]) -> Iterator[str]:
    """Yield names, none of them twice, not even in other case: ``fool``, ``fool_2``, ``fool_3``."""
    taken: set[str] = set()
    next_number: dict[str, int] = {}
    for name in names:
        unique, folded = name, name.casefold()
        number = next_number.get(folded, 2)
        while unique.casefold() in taken:
            unique, number = f"{name}_{number}", number + 1
        next_number[folded] = number
        taken.add(unique.casefold())
        yield unique


def _check_lengths(prompts: list[str]) -> None:
    limit = get_config().generation.max_prompt_length
    for index, prompt in enumerate(prompts):
        if len(prompt) > limit:
            raise Invalid(
                f"With this theme the prompt of row {index + 1} has {len(prompt)} characters; {limit} are allowed.",
                pointer="/theme",
                code="prompt_too_long",
            )
