"""Files beside a picture that say something about it: ``heart.txt`` and ``heart.json`` about ``heart.png``."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from albums.decoding import PictureRefused
from albums.models.images import LONGEST_PROMPT
from albums.models.labels import LONGEST_CAPTION, LONGEST_TAG

LARGEST_BYTES = 1024 * 1024
MOST_TAGS = 500
HIGHEST_COUNT = 2**31 - 1
HIGHEST_SEED = 2**63 - 1


class BadSidecar(PictureRefused):
    """What is said about a picture cannot be understood. It is not imported, so that a later run finds it mended."""

    code = "bad_sidecar"


def _split(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _without_empty(values: list[str]) -> list[str]:
    return [tag for value in values if (tag := " ".join(value.split()))]


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("It contains a NUL character, which cannot be stored")
    return text.strip()


Text = Annotated[str, AfterValidator(_storable)]
Tag = Annotated[Text, Field(max_length=LONGEST_TAG)]


class Sidecar(BaseModel):
    """What is said about a picture. Names that are not known here are left alone: other programs write these files."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    caption: Annotated[Text, Field(max_length=LONGEST_CAPTION)] = ""
    tags: Annotated[
        list[Tag], BeforeValidator(_split), AfterValidator(_without_empty), Field(max_length=MOST_TAGS)
    ] = []
    """A list, or one string with commas."""
    name: Annotated[Text, Field(max_length=200)] = ""
    prompt: Annotated[Text, Field(max_length=LONGEST_PROMPT)] = ""
    negative_prompt: Annotated[Text, Field(max_length=LONGEST_PROMPT)] = ""
    seed: Annotated[int, Field(ge=0, le=HIGHEST_SEED)] | None = None
    steps: Annotated[int, Field(ge=1, le=HIGHEST_COUNT)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, strict=False)] | None = None
    scheduler: Annotated[Text, Field(max_length=100)] = ""
    base_model: Annotated[Text, Field(max_length=200)] = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What belongs to the image itself."""
        return self.model_dump(exclude={"caption", "tags"}, exclude_unset=True, exclude_none=True)


def read_sidecars(picture: Path) -> Sidecar:
    """Return what the files beside a picture say. The whole of the text file is the caption, unless the other has one.

    Raises:
        BadSidecar: one of them is too large, a link, no UTF-8, or not what it should be.
    """
    text, data = _read(picture, ".txt"), _read(picture, ".json")
    try:
        sidecar = (
            Sidecar() if data is None else Sidecar.model_validate_json(data.removeprefix(b"\xef\xbb\xbf"))
        )
        if text is not None and not sidecar.caption:
            sidecar = Sidecar.model_validate(sidecar.model_dump() | {"caption": text.decode("utf-8-sig")})
    except UnicodeDecodeError as error:
        raise BadSidecar("The text beside it is not UTF-8.") from error
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise BadSidecar(
            f"What is said beside it is not valid: {where + ': ' if where else ''}{wrong['msg']}."
        ) from error
    return sidecar


def _read(picture: Path, suffix: str) -> bytes | None:
    """Return what ``heart.txt``, or else ``heart.png.txt``, has in it; None where neither is there."""
    for path in (picture.with_suffix(suffix), picture.with_name(picture.name + suffix)):
        with suppress(FileNotFoundError):
            return _read_regular(path)
    return None


def _read_regular(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadSidecar(f"“{path.name}” beside it is a link, or cannot be read.") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
            raise BadSidecar(f"“{path.name}” beside it is no file of at most {LARGEST_BYTES:,} bytes.")
        return file.read(LARGEST_BYTES)
