"""What a set template may hold. Everything that is wrong is told at once, each with its row and column."""

import math
from collections.abc import Iterator
from typing import Any

from albums.models import Album
from albums.models.albums import LONGEST_SET_PROMPT
from albums.set_templates.prompts import compose_prompt, placeholders
from imagehub.config import get_config
from imagehub.database import UNSTORABLE
from imagehub.errors import Conflict, Fault, Invalid, InvalidFields, NotReady

MAX_ROWS = 10_000
MAX_COLUMNS = 50
LONGEST_COLUMN = 100
LONGEST_THEME = 500
MAX_LORAS = 8
LONGEST_LORA_ID = 64
LARGEST_WEIGHT = 2.0
MULTIPLE = 8
MAX_FAULTS = 100
"""More would help nobody."""

TEXTS = ("base_prompt", "prompt_template", "style_suffix", "negative_prompt")

_LONGEST_QUOTE = 50


class NotASet(Conflict):
    code = "not_a_set"
    title = "The album is no set template"


class SetBroken(NotReady):
    code = "set_broken"
    title = "The set template cannot be rendered"


def validate_set_template(album: Album) -> None:
    """Check the set fields of an album, saved or not.

    Rows, sides, adapters and the lengths of texts are checked on every album; that there are rows and that each of
    them makes a prompt, on one that is a set template.

    Raises:
        Invalid: something is wrong. Its ``faults`` name all of it, with pointers such as ``/set_rows/3/suit``.
    """
    faults = []
    for fault in _faults(album):
        faults.append(fault)
        if len(faults) == MAX_FAULTS:
            break
    if faults:
        raise InvalidFields(faults)


def check_theme(theme: str) -> str:
    """Return a theme as it is used, without white space around it.

    Raises:
        Invalid: it does not have 1 to 500 characters.
    """
    theme = theme.strip()
    if not theme:
        raise Invalid("This may not be empty.", pointer="/theme", code="blank")
    if len(theme) > LONGEST_THEME:
        raise Invalid(f"It has at most {LONGEST_THEME} characters.", pointer="/theme", code="max_length")
    if UNSTORABLE.search(theme):
        raise Invalid("It holds a character that cannot be stored.", pointer="/theme")
    return theme


def _faults(album: Album) -> Iterator[Fault]:
    yield from _faults_of_texts(album)
    yield from _faults_of_sides(album)
    yield from _faults_of_loras(album.loras)
    of_rows = list(_faults_of_rows(album.set_rows))
    yield from of_rows
    if album.is_set_template and not of_rows:
        yield from _faults_of_prompts(album)


def _faults_of_texts(album: Album) -> Iterator[Fault]:
    limits = dict.fromkeys(TEXTS, LONGEST_SET_PROMPT) | {"example_theme": LONGEST_THEME}
    for name, limit in limits.items():
        text = getattr(album, name)
        if not isinstance(text, str):
            yield Fault(f"/{name}", "A string is expected.")
        elif len(text) > limit:
            yield Fault(f"/{name}", f"It has at most {limit} characters.", "max_length")
        elif UNSTORABLE.search(text):
            yield Fault(f"/{name}", "It holds a character that cannot be stored.")


def _faults_of_sides(album: Album) -> Iterator[Fault]:
    limits = get_config().generation.side
    for name in ("width", "height"):
        value = getattr(album, name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            yield Fault(f"/{name}", "A whole number is expected.")
        elif not limits.minimum <= value <= limits.maximum:
            yield Fault(f"/{name}", f"It lies between {limits.minimum} and {limits.maximum}.", "out_of_range")
        elif value % MULTIPLE:
            yield Fault(f"/{name}", f"It is a multiple of {MULTIPLE}.", "not_a_multiple")


def _faults_of_loras(loras: Any) -> Iterator[Fault]:
    if not isinstance(loras, list):
        yield Fault("/loras", "A list is expected.")
        return
    if len(loras) > MAX_LORAS:
        yield Fault("/loras", f"There are at most {MAX_LORAS} adapters.", "max_length")
        return
    seen = set()
    for index, lora in enumerate(loras):
        pointer = f"/loras/{index}"
        if not isinstance(lora, dict):
            yield Fault(pointer, "An object with id and weight is expected.")
            continue
        for name in lora.keys() - {"id", "weight"}:
            yield Fault(f"{pointer}/{_escaped(name)}", "There is no such field.", "unknown_field")
        lora_id = lora.get("id")
        if not _is_lora_id(lora_id):
            yield Fault(f"{pointer}/id", "The id of an adapter is expected.")
        elif str(lora_id) in seen:
            yield Fault(f"{pointer}/id", "This adapter is named twice.", "duplicate")
        seen.add(str(lora_id))
        if not _is_weight(lora.get("weight")):
            yield Fault(
                f"{pointer}/weight",
                f"A number between {-LARGEST_WEIGHT:g} and {LARGEST_WEIGHT:g} is expected.",
                "out_of_range",
            )


def _is_lora_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value.strip()) >= 1 and len(value) <= LONGEST_LORA_ID and not UNSTORABLE.search(value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= LARGEST_WEIGHT


def _faults_of_rows(rows: Any) -> Iterator[Fault]:
    """Find what is wrong with the shape of rows: they are a list of objects of strings."""
    if not isinstance(rows, list):
        yield Fault("/set_rows", "A list of objects is expected.")
        return
    if len(rows) > MAX_ROWS:
        yield Fault("/set_rows", f"There are at most {MAX_ROWS} rows.", "max_length")
        return
    for index, row in enumerate(rows):
        pointer = f"/set_rows/{index}"
        if not isinstance(row, dict):
            yield Fault(pointer, "An object of strings is expected.", "invalid_row")
        elif not row:
            yield Fault(pointer, "This row has no columns.", "invalid_row")
        elif len(row) > MAX_COLUMNS:
            yield Fault(pointer, f"There are at most {MAX_COLUMNS} columns.", "max_length")
        else:
            for column, cell in row.items():
                yield from _faults_of_cell(f"{pointer}/{_escaped(column)}", column, cell)


def _faults_of_cell(pointer: str, column: Any, cell: Any) -> Iterator[Fault]:
    if reason := unfit_column(column):
        yield Fault(pointer, reason, "invalid_column")
    elif not isinstance(cell, str):
        yield Fault(pointer, "A string is expected.", "not_a_string")
    elif len(cell) > LONGEST_SET_PROMPT:
        yield Fault(pointer, f"It has at most {LONGEST_SET_PROMPT} characters.", "max_length")
    elif UNSTORABLE.search(cell):
        yield Fault(pointer, "It holds a character that cannot be stored.")


def unfit_column(column: Any) -> str:
    """Say why a column may not be called so; an empty string if it may."""
    if not isinstance(column, str) or not column.strip():
        return "A column has a name."
    if column != column.strip():
        return "The name of a column has no white space around it."
    if len(column) > LONGEST_COLUMN:
        return f"The name of a column has at most {LONGEST_COLUMN} characters."
    if not column.isprintable() or set("{}") & set(column):
        return "The name of a column has no braces and no control characters."
    return ""


def _faults_of_prompts(album: Album) -> Iterator[Fault]:
    """Find what keeps rows of a good shape from becoming prompts."""
    if not album.set_rows:
        yield Fault("/set_rows", "A set has at least one row.", "empty")
        return
    if not all(isinstance(getattr(album, name), str) for name in (*TEXTS, "example_theme")):
        return
    columns = set().union(*album.set_rows)
    wanted = placeholders(album.prompt_template)
    for name in wanted:
        if name not in columns:
            yield Fault(
                "/prompt_template",
                f"There is no column “{_quoted(name)}” for the placeholder {{{_quoted(name)}}}.",
                "unknown_placeholder",
            )
    limit = get_config().generation.max_prompt_length
    for index, row in enumerate(album.set_rows):
        missing = [name for name in wanted if name in columns and name not in row]
        for name in missing:
            yield Fault(
                f"/set_rows/{index}/{_escaped(name)}", "The template needs this column.", "missing_column"
            )
        if missing or not columns.issuperset(wanted):
            continue
        length = len(compose_prompt(album, row, album.example_theme))
        if length > limit:
            yield Fault(
                f"/set_rows/{index}",
                f"The prompt of this row has {length} characters; {limit} are allowed.",
                "prompt_too_long",
            )
        elif not compose_prompt(album, row, ""):
            yield Fault(f"/set_rows/{index}", "The prompt of this row is empty.", "blank")


def _quoted(name: str) -> str:
    return name if len(name) <= _LONGEST_QUOTE else f"{name[:_LONGEST_QUOTE]}…"


def _escaped(name: Any) -> str:
    """Write a name as a part of a JSON pointer (RFC 6901)."""
    return str(name)[:LONGEST_COLUMN].replace("~", "~0").replace("/", "~1")
