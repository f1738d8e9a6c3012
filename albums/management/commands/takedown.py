import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from albums import lineage
from albums.image_lineage import IMAGE
from albums.lineage import Key
from albums.models import Image
from imagehub.accounts import audit
from imagehub.egress.hosts import read_host


class Command(BaseCommand):
    help = (
        "List everything that descends from a picture, or from what was fetched from a host or a page: the picture itself, "
        "pictures made from it, adapters trained on it, what they made. With --yes all of it is quarantined: pictures become "
        "private and go into the trash, adapters are disabled, jobs cancelled. Doing it again finds what came since."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--image", type=UUID, metavar="ID", help="A picture, be it in the trash.")
        source.add_argument("--source-domain", metavar="HOST", help="A host; those below it count as well.")
        source.add_argument(
            "--source-page", metavar="URL", help="A page, or a picture, by its whole address; none below it."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only list, which is what happens without --yes too."
        )
        parser.add_argument("--yes", action="store_true", help="Quarantine what is listed.")
        parser.add_argument("--reason", default="", help="What to note in the audit trail.")
        parser.add_argument(
            "--json",
            action="store_true",
            dest="as_json",
            help="Print one JSON object, a line for each thing.",
        )

    def handle(
        self,
        *,
        image: UUID | None,
        source_domain: str | None,
        source_page: str | None,
        dry_run: bool,
        yes: bool,
        reason: str,
        as_json: bool,
        **options: Any,
    ) -> None:
        if yes and dry_run:
            raise CommandError("Either --dry-run or --yes.")
        starts = self._starts(image, source_domain, source_page)
        reason = reason or f"takedown of {self._named(image, source_domain, source_page)}"
        found: Counter[str] = Counter()
        changed: Counter[str] = Counter()
        if as_json:
            self.stdout.write(f'{{"dry_run": {json.dumps(not yes)}, "found": [')
        with audit.running_command():
            for keys in lineage.walk_results(starts):
                self._list(keys, is_first=not found, as_json=as_json)
                found[keys[0].kind] += len(keys)
                if yes:
                    changed[keys[0].kind] += lineage.quarantine(keys, reason)
        if as_json:
            counts = {"counts": dict(found), "quarantined": dict(changed)}
            self.stdout.write(f"], {json.dumps(counts)[1:]}")
        else:
            self._sum_up(found, changed, is_done=yes)

    @staticmethod
    def _starts(image: UUID | None, domain: str | None, page: str | None) -> Iterator[Key]:
        if image is not None:
            if not Image.objects.filter(pk=image).exists():
                raise CommandError("There is no such image.")
            return iter([Key(IMAGE, str(image))])
        if not lineage.knows_sources():
            raise CommandError("Nothing here records which hosts things were fetched from.")
        return lineage.found_on(_page(page)) if page is not None else lineage.found_at(_host(str(domain)))

    @staticmethod
    def _named(image: UUID | None, domain: str | None, page: str | None) -> str:
        """Say what is taken down. Of an address only what tells where it leads: there may be a secret in all else."""
        if image is not None:
            return f"image {image}"
        if page is None:
            return _host(str(domain))
        parts = urlsplit(_page(page))
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        return f"page {urlunsplit(place)}"

    def _list(self, keys: list[Key], *, is_first: bool, as_json: bool) -> None:
        for number, key in enumerate(keys):
            if as_json:
                comma = "" if is_first and number == 0 else ","
                self.stdout.write(comma + json.dumps({"kind": key.kind, "id": key.id}))
            else:
                self.stdout.write(f"{key.kind:16} {key.id}")

    def _sum_up(self, found: Counter[str], changed: Counter[str], *, is_done: bool) -> None:
        listed = ", ".join(f"{count} {kind}" for kind, count in found.items()) or "nothing"
        self.stdout.write(f"Found {listed}.")
        if is_done:
            done = ", ".join(f"{count} {kind}" for kind, count in changed.items() if count) or "nothing more"
            self.stdout.write(self.style.SUCCESS(f"Quarantined {done}."))
        else:
            self.stdout.write("Nothing was changed. Add --yes to quarantine it.")


def _host(written: str) -> str:
    """Return a host in its one spelling.

    Raises:
        CommandError: it is no host.
    """
    text = written.strip()
    port = re.fullmatch(r"(\[.*\]|[^:]*):[0-9]+", text)  # the same host, whatever the door
    text = (port[1] if port else text).strip("[]").removeprefix("*").strip(".")
    try:
        return str(read_host(text))
    except ValueError:
        raise CommandError(f"“{written}” is no host. One is written like example.com.") from None


def _page(written: str) -> str:
    """Return the address of a page as it is written.

    Raises:
        CommandError: it is no address.
    """
    try:
        parts = urlsplit(written.strip())
        is_one = parts.scheme in ("http", "https") and bool(read_host(parts.hostname or ""))
        _ = parts.port  # raises ValueError for one that is none
    except ValueError:
        is_one = False
    if not is_one:
        raise CommandError("A page is named by its whole address, like https://example.com/page.")
    return written.strip()
