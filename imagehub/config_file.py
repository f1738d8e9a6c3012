"""The text of ``config.yaml``: read strictly, and changed without losing its comments. Knows no settings.

One library reads and writes, so that both mean the same by ``yes`` and by ``010``.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML, CommentedMap

from imagehub.config_schema import Config, Section
from imagehub.errors import Conflict
from imagehub.strict_yaml import load_yaml

Place = tuple[str | int, ...]
"""Where a value stands: the names of its sections and its own."""

MAX_BYTES = 1024 * 1024
"""Far more than any configuration needs, and no burden to a process that reads it by mistake."""

NEW_FILE_MODE = 0o640


class ConfigInvalid(ValueError):
    """The configuration breaks the schema. ``errors`` holds the place and the sentence of each fault."""

    def __init__(self, errors: list[tuple[Place, str]]) -> None:
        self.errors = errors
        super().__init__(
            "; ".join(f"{'.'.join(map(str, place)) or 'the file'}: {text}" for place, text in errors)
        )


class ConfigNotWritable(Conflict):
    code = "configuration_not_writable"
    title = "The configuration cannot be changed here"


def read(path: Path) -> Config:
    """Return the configuration in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: see :func:`parse`.
    """
    return parse(_text(path))


def parse(text: str) -> Config:
    """Return the configuration in a YAML text.

    Raises:
        ConfigInvalid: it breaks the schema.
        ValueError: it is no YAML, or more of it than a configuration needs.
    """
    data = _data(text)
    try:
        return Config.model_validate({} if data is None else data)
    except ValidationError as error:
        raise ConfigInvalid([(item["loc"], item["msg"]) for item in error.errors()]) from error


@dataclass
class Edit:
    """A change that is checked and not yet written."""

    before: Config
    after: Config
    _path: Path
    _text: str

    @property
    def changes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was, and what will be: the values that differ, by their dotted names."""
        before, after = _flat(self.before.model_dump(mode="json")), _flat(self.after.model_dump(mode="json"))
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}

    def write(self) -> None:
        """Put the new text in the place of the old, in one step.

        Raises:
            ConfigNotWritable: the disk does not let us.
        """
        try:
            _replace(self._path, self._text)
        except OSError as error:
            raise _not_writable(error) from error


@contextmanager
def editing(path: Path, changes: Mapping[str, Any]) -> Iterator[Edit]:
    """Prepare a change of a file, and keep others from changing it until the end of the block.

    ``changes`` is a nested part of the configuration; null takes a value out of the file, so that its default holds. A
    symbolic link stays one: the file it leads to is changed.

    Raises:
        ConfigInvalid: the result would break the schema.
        ConfigNotWritable: the file, as it is, is broken, or the disk does not let us.
    """
    path = path.resolve()
    with _locked(path):
        try:
            text = _text(path)
            before = parse(text)
        except FileNotFoundError:
            text, before = "", Config()
        except OSError as error:
            raise _not_writable(error) from error
        except ValueError as error:
            raise ConfigNotWritable(
                f"The file is broken, and has to be mended by hand first: {error}"
            ) from error
        if unknown := list(_unknown(Config, changes)):
            raise ConfigInvalid(unknown)
        changed = _changed(text, changes, before)
        try:
            after = parse(changed)
        except ConfigInvalid:
            raise
        except ValueError as error:  # too long, too deep
            raise ConfigInvalid([((), str(error))]) from error
        yield Edit(before, after, path, changed)


def _not_writable(error: OSError) -> ConfigNotWritable:
    return ConfigNotWritable(f"The configuration file cannot be changed by this server: {error.strerror}.")


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has more than {MAX_BYTES} bytes")
    return data.decode()


def _data(text: str) -> Any:
    if len(text) > MAX_BYTES:
        raise ValueError(f"the text has more than {MAX_BYTES} characters")
    return load_yaml(text)


def _unknown(section: type[Section], changes: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Find the names that are none: the schema would not see one that is given null."""
    for name, value in changes.items():
        field = section.model_fields.get(name)
        if field is None:
            yield (name,), "Extra inputs are not permitted"
        elif isinstance(value, Mapping) and _is_section(field.annotation):
            for place, text in _unknown(field.annotation, value):
                yield (name, *place), text


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _changed(text: str, changes: Mapping[str, Any], before: Config) -> str:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # a long line of the operator's stays one
    data = yaml.load(text)
    if data is None:
        data = CommentedMap()
        if text.strip():  # nothing but comments: they would be lost
            return text.rstrip() + "\n" + _dump(yaml, _merged(data, changes, before, Config()))
    return _dump(yaml, _merged(data, changes, before, Config()))


def _merged(data: Any, changes: Mapping[str, Any], before: Section, default: Section) -> Any:
    for name, value in changes.items():
        current = getattr(before, name)
        if value is None and type(before).model_fields[name].is_required():
            data[name] = getattr(default, name)
        elif value is None:
            data.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(current, Section):
            if name not in data:  # what a section must have, it has by default: now it has to stand there
                fields = type(current).model_fields.items()
                data[name] = CommentedMap(
                    {inner: getattr(current, inner) for inner, field in fields if field.is_required()}
                )
            _merged(data[name], value, current, getattr(default, name))
        else:
            data[name] = value
    return data


def _dump(yaml: YAML, data: Any) -> str:
    target = StringIO()
    yaml.dump(data, target)
    return target.getvalue()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep out every other process that would change the file. A process that dies lets go."""
    try:
        lock = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        raise _not_writable(error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else NEW_FILE_MODE
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(draft).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
