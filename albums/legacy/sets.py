"""What made sets in the system before: first albums that were templates, later templates in a table of their own."""

from collections import Counter
from typing import Any

from albums.legacy import values
from albums.legacy.source import Row
from albums.models import Album
from albums.models.albums import LONGEST_SET_PROMPT
from albums.set_templates.validation import (
    LARGEST_WEIGHT,
    LONGEST_LORA_ID,
    LONGEST_THEME,
    MAX_LORAS,
    MULTIPLE,
    TEXTS,
    validate_set_template,
)
from imagehub.config import get_config
from imagehub.errors import ImageHubError, Invalid

COLUMNS = (
    "csv_data", "base_prompt", "prompt_template", "style_suffix", "example_theme", "lora_config",
    "negative_prompt", "width", "height",
)  # fmt: skip


class BadSet(ImageHubError):
    """What a template cannot be made of. ``code`` says why."""

    title = "The set template is not imported"

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


def set_fields(row: Row, notes: Counter[str]) -> dict[str, Any]:
    """Return the set fields of an album, from a template of either time.

    Adapters were files; their names are what is left to look for them by.

    Raises:
        BadSet: its rows are no list of objects, a text is too long, or a row makes no prompt.
    """
    fallback = _config(row.get("generation_config"), notes)
    fields: dict[str, Any] = {"is_set_template": True, "set_rows": _rows(row["csv_data"])}
    for name in TEXTS:
        written = row[name] if row[name] is not None else fallback.get(name)
        fields[name] = _text(written, name, LONGEST_SET_PROMPT)
    fields["example_theme"] = _text(row["example_theme"], "example_theme", LONGEST_THEME)
    for name in ("width", "height"):
        fields[name] = _side(row[name] if row[name] is not None else fallback.get(name), name, notes)
    fields["loras"] = _loras(row["lora_config"], notes)
    try:
        validate_set_template(Album(**fields))
    except Invalid as error:
        fault = error.faults[0]
        raise BadSet(f"{fault.pointer}: {fault.detail}", code=fault.code) from error
    return fields


def _rows(written: Any) -> list[dict[str, str]]:
    try:
        rows = values.parsed(written)
    except ValueError as error:
        raise BadSet("Its rows are no JSON.", code="broken_json") from error
    if not rows:
        raise BadSet("It has no rows.", code="no_rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadSet("Its rows are no list of objects.", code="broken_rows")
    return [
        {values.text(name): _cell(cell, number) for name, cell in row.items()}
        for number, row in enumerate(rows, start=1)
    ]


def _cell(cell: Any, number: int) -> str:
    if isinstance(cell, list | dict):
        raise BadSet(f"A cell of row {number} is no text.", code="broken_rows")
    return values.text(cell)


def _text(written: Any, name: str, longest: int) -> str:
    text = values.text(written)
    if len(text) > longest:
        raise BadSet(f"Its {name} has more than {longest} characters.", code="too_long")
    return text


def _side(written: Any, name: str, notes: Counter[str]) -> int | None:
    limits = get_config().generation.side
    side = values.whole_number(written, least=limits.minimum, most=limits.maximum)
    if side is not None and side % MULTIPLE == 0:
        return side
    if written not in (None, ""):
        notes[f"{name} out of range, left out"] += 1
    return None


def _loras(written: Any, notes: Counter[str]) -> list[dict[str, Any]]:
    try:
        found = values.adapters(written)
    except ValueError:
        notes["adapters that cannot be read, left out"] += 1
        return []
    by_name = {name[:LONGEST_LORA_ID]: weight for name, weight in reversed(found)}  # the first of equal names
    kept = [
        {"id": name, "weight": max(-LARGEST_WEIGHT, min(weight, LARGEST_WEIGHT))}
        for name, weight in reversed(by_name.items())
    ]
    if len(kept) > MAX_LORAS:
        notes[f"more than {MAX_LORAS} adapters, the rest left out"] += 1
    return kept[:MAX_LORAS]


def _config(written: Any, notes: Counter[str]) -> dict[str, Any]:
    try:
        config = values.parsed(written)
    except ValueError:
        config = None
        notes["generation_config that cannot be read, left out"] += 1
    return config if isinstance(config, dict) else {}
