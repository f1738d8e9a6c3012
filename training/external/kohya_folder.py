"""A data set as sd-scripts reads it: a folder for each number of repeats, ``10_name``, with ``.txt`` files beside the pictures."""

import shutil
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from training.datasets.manifest import Manifest
from training.pipelines.failures import FailureCode, RequestFailed
from training.trainer.metadata import file_stem
from training.trainer.writing import naming_failures

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


def write_dataset(manifest: Manifest, images: Path, target: Path, *, name: str) -> int:
    """Write the pictures to learn from, and what is said of them; return how many there are.

    They are copied and not linked, for nobody knows what another program does to its files.

    Args:
        manifest: which pictures.
        images: where they lie, each called by its SHA-256.
        target: the folder to write. What was there is deleted.
        name: of what is learned; sd-scripts takes it for the caption of a picture that has none.

    Raises:
        RequestFailed: a picture is missing or none (``dataset_invalid``), or the files cannot be written (``disk_full``,
            ``storage_error``).
    """
    shutil.rmtree(target, ignore_errors=True)
    entries = manifest.of_role("train")
    with naming_failures("the data set"):
        for number, entry in enumerate(entries):
            source = images / entry.sha256
            folder = target / f"{entry.repeats}_{file_stem(name)}"
            folder.mkdir(parents=True, exist_ok=True)
            # The same picture may stand there twice, with another caption.
            stem = f"{number:06d}-{entry.sha256[:12]}"
            shutil.copyfile(source, folder / f"{stem}{_suffix(source)}")
            (folder / f"{stem}.txt").write_text(entry.caption, encoding="utf-8")
    return len(entries)


def _suffix(source: Path) -> str:
    try:
        with Image.open(source) as picture:
            return SUFFIXES[picture.format or ""]
    except (OSError, UnidentifiedImageError, KeyError):
        raise RequestFailed(
            FailureCode.DATASET_INVALID, f"The picture {source.name[:12]} is missing, or is none."
        ) from None
