import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat
from tqdm import tqdm

from albums.models import Album, Image, Visibility
from albums.services.archive import archive_album


class Command(BaseCommand):
    help = "Write the images of an album into a ZIP file, in their order."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("album", type=uuid.UUID, metavar="ID")
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="Where to. Default: the id of the album, here."
        )
        parser.add_argument("--public", action="store_true", help="Only what everybody may see.")

    def handle(self, *, album: uuid.UUID, output: Path | None, public: bool, **options: Any) -> None:
        row = Album.objects.filter(pk=album).first()
        if row is None:
            raise CommandError(f"There is no album {album}.")
        images = Image.objects.live()
        if public:
            images = images.filter(visibility=Visibility.PUBLIC).unflagged()
        path = output or Path(f"{album}.zip")
        try:
            with closing(archive_album(row, images)) as archive:
                self._write(path, archive)
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
        self.stdout.write(f"{archive.images} images, {filesizeformat(archive.size_bytes)}: {path}")

    def _write(self, path: Path, archive: Any) -> None:
        """Write a file that has its name only when it is whole, and replaces none."""
        if path.exists():
            raise CommandError(f"{path} is there already.")
        partial = path.with_name(f".{path.name}.part")
        try:
            with (
                partial.open("wb") as target,
                tqdm(total=archive.size_bytes, unit="B", unit_scale=True, disable=None) as progress,
            ):
                for chunk in archive:
                    target.write(chunk)
                    progress.update(len(chunk))
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
