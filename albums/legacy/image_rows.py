"""Images, and the files they describe."""

from collections import Counter
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError

from albums.batches import in_batches
from albums.decoding import PictureRefused
from albums.legacy import pictures, values
from albums.legacy.album_rows import created_at, visibility_of
from albums.legacy.files import FileRefused
from albums.legacy.running import LegacyRun
from albums.legacy.source import Row, key_of
from albums.models import Image
from albums.services import request_derivatives, save_image
from albums.services.file_names import safe_file_name, title_of
from albums.services.uploads import store_vetted

BATCH = 200
COLUMNS = (
    "id", "filename", "file_path", "prompt", "negative_prompt", "seed", "steps", "guidance_scale", "lora_config",
    "is_nsfw", "is_public", "created_at",
)  # fmt: skip
LARGEST_SEED = 2**63 - 1
LARGEST_STEPS = 2**31 - 1
LARGEST_GUIDANCE = 1e6


def image_key(row: Row) -> Any:
    """Return the id that says where an image came from, by its columns id, filename and created_at."""
    return key_of("images", row, name=values.text(row["filename"]))


def import_images(run: LegacyRun) -> None:
    """Import images whose file is there and passes the checks of uploads."""
    table = run.report.table("images")
    for rows in in_batches(run.source.rows("images", COLUMNS), BATCH):
        keys = {row["id"]: image_key(row) for row in rows}
        there = run.imported(list(keys.items()))
        for row in rows:
            table.found += 1
            if keys[row["id"]] in there:
                table.already_there += 1
            else:
                _import(row, keys[row["id"]], run)


def _import(row: Row, key: Any, run: LegacyRun) -> None:
    table = run.report.table("images")
    notes: Counter[str] = Counter()
    image = _new_image(row, run, notes)
    image.source_id = key
    refusal: tuple[str, str]
    try:
        with pictures.vetted_copy(
            run.files.find(values.text(row["file_path"])), staging=run.staging
        ) as picture:
            if run.dry_run:
                image.clean_fields(
                    exclude=["owner", "storage_name", "sha256", "size_bytes", "width", "height", "format"]
                )
            else:
                store_vetted(image, picture)
                save_image(image)
                request_derivatives([image.pk])
    except IntegrityError:  # another run was faster
        table.already_there += 1
        return
    except (FileRefused, PictureRefused) as error:
        refusal = (error.code, str(error))
    except ValidationError as error:
        refusal = ("invalid", f"Not valid: {', '.join(error.message_dict)}.")
    except PermissionError:
        refusal = ("unreadable_file", "Its file may not be read.")
    else:
        table.imported += 1
        table.notes += notes
        return
    run.refuse("images", row["id"], refusal[0], f"{image.original_name}: {refusal[1]}")


def _new_image(row: Row, run: LegacyRun, notes: Counter[str]) -> Image:
    file_name = safe_file_name(values.text(row["filename"]))
    return Image(
        owner=run.owner,
        name=title_of(file_name),
        original_name=file_name,
        visibility=visibility_of(row, notes),
        nsfw=_nsfw_of(row, notes),
        created_at=created_at(row, notes),
        prompt=values.text(row["prompt"]),
        negative_prompt=values.text(row["negative_prompt"]),
        seed=_number(row, "seed", notes, least=0, most=LARGEST_SEED),
        steps=_number(row, "steps", notes, least=1, most=LARGEST_STEPS),
        guidance_scale=_guidance_of(row, notes),
        loras=_loras_of(row, notes),
        source_kind=Image.SourceKind.IMPORT,
    )


def _nsfw_of(row: Row, notes: Counter[str]) -> str:
    """Return whether a picture is fit for everybody. The system before took what it could not tell for safe."""
    is_flagged = values.flag(row["is_nsfw"])
    if is_flagged is None and row["is_nsfw"] is not None:
        notes["NSFW flag that cannot be read, flagged"] += 1
        return Image.Nsfw.FLAGGED
    return Image.Nsfw.FLAGGED if is_flagged else Image.Nsfw.UNKNOWN


def _number(row: Row, name: str, notes: Counter[str], *, least: int, most: int) -> int | None:
    number = values.whole_number(row[name], least=least, most=most)
    if number is None and row[name] is not None:
        notes[f"{name} out of range, left out"] += 1
    return number


def _guidance_of(row: Row, notes: Counter[str]) -> float | None:
    number = values.real_number(row["guidance_scale"], least=0, most=LARGEST_GUIDANCE)
    if number is None and row["guidance_scale"] is not None:
        notes["guidance_scale out of range, left out"] += 1
    return number


def _loras_of(row: Row, notes: Counter[str]) -> list[dict[str, Any]]:
    try:
        found = values.adapters(row["lora_config"])
    except ValueError:
        notes["adapters that cannot be read, left out"] += 1
        return []
    return [{"id": None, "name": name, "weight": weight} for name, weight in found]
