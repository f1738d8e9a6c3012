import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from albums.models import Album, Visibility
from albums.services import create_album
from albums.services.folders import ImportReport, find_pictures, import_pictures
from imagehub.accounts import audit
from imagehub.accounts.named_user import named_user
from imagehub.errors import ImageHubError

LINES = 50


class Command(BaseCommand):
    help = (
        "Import a folder of pictures into an album, by the same checks that uploads pass. A text file beside a picture "
        "(heart.txt or heart.png.txt) is its caption; a JSON file may have caption, tags, name, prompt, negative_prompt, "
        "seed, steps, guidance_scale, scheduler and base_model. What was imported into the album before is left out, so "
        "an import can be repeated and resumed. Exits with 1 if a file was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "folder", type=Path, metavar="DIR", help="Where the pictures lie. It is only read."
        )
        parser.add_argument(
            "--album",
            required=True,
            metavar="NAME",
            help="Name or id of the album; made where there is none.",
        )
        parser.add_argument(
            "--visibility",
            choices=Visibility.values,
            default=Visibility.PRIVATE.value,
            help="Of the images, and of an album that is made (default: private).",
        )
        parser.add_argument("--owner", metavar="USER", help="Name or address of the user whose they are.")
        parser.add_argument("--no-recursive", action="store_true", help="Leave out the folders within.")
        parser.add_argument("--dry-run", action="store_true", help="Check everything and write nothing.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object, and no progress.")

    def handle(self, *, folder: Path, **options: Any) -> None:
        if not folder.is_dir():
            raise CommandError(f"There is no folder {folder}.")
        folder = folder.resolve()
        report, stopped = ImportReport(), ""
        with audit.running_command():
            owner = named_user(options["owner"])
            album = _find_album(options["album"])
            is_new = album is None
            if album is None and not options["dry_run"]:
                album = _make_album(options["album"], options["visibility"], owner)
            try:
                self._import(folder, album, owner, report, options)
            except KeyboardInterrupt:
                stopped = "Interrupted. The same command goes on from here."
            except ImageHubError as error:
                stopped = str(error)
        told = {"id": str(album.pk) if album else None, "name": str(album or options["album"]), "new": is_new}
        self._print(
            {"album": told, "dry_run": options["dry_run"], "stopped": stopped or None}, report, options
        )
        if stopped or report.refused:
            raise CommandError(stopped or f"{len(report.refused)} files were refused.", returncode=1)

    def _import(
        self,
        folder: Path,
        album: Album | None,
        owner: User | None,
        report: ImportReport,
        options: dict[str, Any],
    ) -> None:
        def paths():
            return find_pictures(folder, recursive=not options["no_recursive"])

        quiet = True if options["json"] else None  # None: unless somebody watches
        with tqdm(total=sum(1 for _ in paths()), unit="picture", disable=quiet) as bar:
            import_pictures(
                folder,
                paths(),
                album=album,
                visibility=options["visibility"],
                owner=owner,
                dry_run=options["dry_run"],
                report=report,
                progress=bar.update,
            )

    def _print(self, about: dict[str, Any], report: ImportReport, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(about | asdict(report)))
            return
        would = "would be " if options["dry_run"] else ""
        self.stdout.write(
            f"{report.found} pictures found: {report.imported} {would}imported into “{about['album']['name']}”, "
            f"{report.already_there} there already, {len(report.refused)} refused. {report.labels} labels."
        )
        for file in report.refused[:LINES]:
            self.stdout.write(self.style.WARNING(f"  {file.path}: {file.detail} ({file.code})"))
        if len(report.refused) > LINES:
            self.stdout.write(f"  … and {len(report.refused) - LINES} more: see --json")


def _find_album(name: str) -> Album | None:
    """Return the album of this id or name.

    Raises:
        CommandError: there are several, or there is none of this id.
    """
    try:
        pk = uuid.UUID(name)
    except ValueError:
        found = list(Album.objects.filter(name=name)[:2])
        if len(found) > 1:
            raise CommandError(f"Several albums are called “{name}”: give the id of one.") from None
        return found[0] if found else None
    album = Album.objects.filter(pk=pk).first()
    if album is None:
        raise CommandError(f"There is no album {name}.")
    return album


def _make_album(name: str, visibility: str, owner: User | None) -> Album:
    try:
        return create_album(Album(name=name, visibility=visibility, owner=owner))
    except ValidationError as error:
        raise CommandError(f"An album cannot be called that: {' '.join(error.messages)}") from error
