"""One entry of a folder's ``config.yaml``, in today's spelling or in one of the older ones."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from albums.models import Album, Visibility
from imagehub.errors import Fault, InvalidFields

LONGEST_KEY = 100
DEFAULT_WEIGHT = 0.6
"""What the old system gave an adapter of which nothing else was said."""

TEXTS = ("base_prompt", "prompt_template", "style_suffix", "example_theme", "negative_prompt")
SIDES = ("width", "height")
LORAS = ("loras", "lora", "lora_weights")
NOT_KEPT = {"created_by", "legacy_slug", "slug"}
"""Left behind in silence: who made a set is told by ``--owner``, and addresses here are ids."""

KNOWN = {"name", "description", "csv_path", "album_type", "is_public", "generation_config"}.union(
    TEXTS, SIDES, LORAS, NOT_KEPT
)

_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass
class SetEntry:
    """A set as a file describes it, still without its rows."""

    key: str
    csv_path: str | None = None
    """Relative to the folder; None if the file does not name one."""
    values: dict[str, Any] = field(default_factory=dict)
    """The columns of an album that the file decides."""
    visibility: str | None = None
    warnings: list[str] = field(default_factory=list)


def read_entry(key: Any, data: Any) -> SetEntry:
    """Return what an entry says.

    Raises:
        Invalid: a part of it has the wrong type. Its ``faults`` point into the entry.
    """
    return _Reader(key, data).read()


def title_of(key: str) -> str:
    """Return a name for a set that has none: ``card_deck`` is called Card Deck."""
    return re.sub(r"[\s_-]+", " ", key).strip().title() or key


class _Reader:
    """Reads one entry, and collects what is wrong with it."""

    def __init__(self, key: Any, data: Any) -> None:
        self.key, self.data = key, data
        self.faults: list[Fault] = []
        self.warnings: list[str] = []

    def read(self) -> SetEntry:
        if (
            not isinstance(self.key, str)
            or not 1 <= len(self.key) <= LONGEST_KEY
            or not self.key.isprintable()
        ):
            self._fault("", f"The key of a set has 1 to {LONGEST_KEY} printable characters.")
        elif not isinstance(self.data, Mapping):
            self._fault("", "The entry of a set is a mapping.")
        if self.faults:
            raise InvalidFields(self.faults)
        generation = self._generation_config()
        values: dict[str, Any] = {
            "name": self._text("name") or title_of(self.key),
            "description": self._text("description"),
            "kind": self._kind(),
            "is_set_template": True,
        }
        for name in TEXTS:
            values[name] = self._text(name) or self._text(name, generation, "generation_config/")
        for name in SIDES:
            values[name] = self._side(self.data.get(name, generation.get(name)))
        loras = self._loras()
        if (
            loras or self.data.get("loras") == []
        ):  # a file that names none by id leaves those that staff have chosen
            values["loras"] = loras
        entry = SetEntry(self.key, self._text("csv_path") or None, values, self._visibility(), self.warnings)
        for name in self.data.keys() - KNOWN:
            self.warnings.append(f"The field “{str(name)[:50]}” is not known, and left out.")
        if self.faults:
            raise InvalidFields(self.faults)
        return entry

    def _fault(self, pointer: str, detail: str) -> None:
        self.faults.append(Fault(pointer, detail))

    def _text(self, name: str, data: Mapping[str, Any] | None = None, prefix: str = "") -> str:
        value = (self.data if data is None else data).get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str | None):
            self._fault(f"/{prefix}{name}", "A string is expected.")
            return ""
        return (value or "").strip()

    @staticmethod
    def _side(value: Any) -> Any:
        """Return a number of pixels; what is none is found when the set is checked."""
        is_written_as_text = isinstance(value, str) and value.strip().isdecimal()
        return int(value) if is_written_as_text else value

    def _kind(self) -> str:
        kind = self._text("album_type")
        return kind if kind in Album.Kind.values else Album.Kind.SET

    def _visibility(self) -> str | None:
        value = self.data.get("is_public")
        if value is None:
            return None
        word = str(value).strip().lower()
        if word not in _YES | _NO:
            self._fault("/is_public", "true or false is expected.")
        return Visibility.PUBLIC if word in _YES else Visibility.PRIVATE

    def _generation_config(self) -> Mapping[str, Any]:
        """Return what the old albums kept in one JSON column: here only sides and the negative prompt have a place."""
        value = self.data.get("generation_config") or {}
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, Mapping):
            self._fault("/generation_config", "A mapping, or JSON of one, is expected.")
            return {}
        for name in value.keys() - {*SIDES, *TEXTS, *NOT_KEPT}:
            self.warnings.append(f"“{str(name)[:50]}” of generation_config is left out.")
        return value

    def _loras(self) -> list[dict[str, Any]]:
        """Return the adapters that are named by an id. A file has no place here: it is told in a warning."""
        listed = self.data.get("loras") or []
        if single := self.data.get("lora"):
            listed = [single, *listed] if isinstance(listed, list) else listed
        if not isinstance(listed, list):
            self._fault("/loras", "A list is expected.")
            return []
        weights = self.data.get("lora_weights") or {}
        if isinstance(weights, list):
            by_order, by_name = weights, {}
        elif isinstance(weights, Mapping):
            by_order, by_name = [], {str(name): weight for name, weight in weights.items()}
        else:
            self._fault("/lora_weights", "A mapping or a list is expected.")
            return []
        kept, seen = [], set()
        for index, item in enumerate(listed):
            lora = {"path": item} if isinstance(item, str) else item
            if not isinstance(lora, Mapping):
                self._fault(f"/loras/{index}", "A mapping with path and weight is expected.")
                continue
            file = _file_of(lora)
            ordered = by_order[index] if index < len(by_order) else DEFAULT_WEIGHT
            weight = lora.get("weight", by_name.get(file, by_name.get(_stem(file), ordered)))
            seen |= {file, _stem(file)}
            if lora.get("id") is not None:
                kept.append({"id": lora["id"], "weight": _number(weight)})
            else:
                self._warn_of(file, weight)
        for name, weight in by_name.items():
            if not {name, _stem(name)} & seen:
                self._warn_of(name, weight)
        for weight in by_order[len(listed) :]:
            self._warn_of("", weight)
        return kept

    def _warn_of(self, file: str, weight: Any) -> None:
        name = f"“{_stem(file)[:100]}”" if file else "without a name"
        self.warnings.append(
            f"The adapter {name} (weight {str(weight)[:10]}) is left out: an adapter is named by its id here."
        )


def _file_of(lora: Mapping[str, Any]) -> str:
    """Return the name of an adapter's file, without the folders before it."""
    places = (lora.get(name) for name in ("path", "file", "filename", "folder", "name"))
    path = next((place for place in places if isinstance(place, str)), "")
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _stem(file: str) -> str:
    return file.removesuffix(".safetensors")


def _number(value: Any) -> Any:
    """Return a number that was written as text; what is none is found when the set is checked."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
