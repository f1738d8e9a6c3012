"""A web of picture galleries, made by code: which pages and pictures there are, how each is shown, and what a crawl should keep.

Each host has an address of its own in 127.77.0.0/16. All that is here depends on numbers only, so that every run and every
tool meets the same web; what happens when somebody asks is :mod:`bench.scraping_server`.
"""

import hashlib
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Self

import PIL.Image

LARGE, HALF, THUMBNAIL, ICON = (480, 360), (240, 180), (96, 72), (32, 32)
TILES = (12, 9)
PROCESSES = 2

SHOWN = ("img", "lazy", "link", "noscript", "picture", "srcset", "meta", "json-ld", "css")
"""The ways in which pictures are embedded, in turns."""

SLOW_SECONDS, USUAL_SECONDS = 0.4, 0.01
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class File:
    """What an address leads to. ``number`` is of the wanted picture that it shows, if it shows one."""

    kind: str
    """``wanted``, ``copy`` (its bytes elsewhere), ``near`` (half as large, compressed again), ``thumbnail``, ``icon``, ``cut``,
    ``fake``, ``missing``, ``broken`` or ``forbidden``."""
    number: int
    name: str = ""
    """Of the file on the disk."""
    trouble: str = ""
    """What happens first: ``busy`` (429 once), ``error`` (500 once), ``moved`` (a redirect)."""


@dataclass(frozen=True)
class Web:
    """So many hosts of so many pages, each with so many pictures that are wanted; ``folder`` holds the files."""

    hosts: int
    pages: int
    pictures: int
    folder: Path
    port: int

    @property
    def wanted(self) -> int:
        return self.hosts * self.pages * self.pictures

    @property
    def hub(self) -> str:
        """The address of a page that leads to all hosts."""
        return self.url(self.hosts, "/")

    def address(self, host: int) -> str:
        return f"127.77.{host // 250}.{host % 250 + 1}"

    def url(self, host: int, path: str) -> str:
        port = "" if self.port == 80 else f":{self.port}"
        return f"http://{self.address(host)}{port}{path}"

    def latency(self, host: int) -> float:
        return SLOW_SECONDS if host % 20 == 7 else USUAL_SECONDS

    def number(self, host: int, page: int, picture: int) -> int:
        return (host * self.pages + page) * self.pictures + picture

    @cached_property
    def files(self) -> list[dict[str, File]]:
        """What each host has, by path; pages are not among it."""
        return [dict(self._files_of(host)) for host in range(self.hosts)]

    def path(self, number: int) -> str:
        """Return where a wanted picture is. Some addresses do not look like those of pictures."""
        return f"/render?id={number}" if number % 33 == 9 else f"/media/{file_name(number)}"

    def _files_of(self, host: int) -> Iterator[tuple[str, File]]:
        for page in range(self.pages):
            for picture in range(self.pictures):
                number = self.number(host, page, picture)
                name = file_name(number)
                trouble = {3: "busy", 23: "error", 13: "moved", 57: "moved"}.get(number % 100, "")
                if _is_broken(host):
                    trouble = ""
                yield self.path(number), File("wanted", number, name, trouble)
                yield f"/moved/{name}", File("wanted", number, name)
                yield f"/small/{number}.jpg", File("thumbnail", number, f"small-{number}.jpg")
            shown = self.number(host, page - 1, 0)
            if page:
                yield f"/again/{page}.jpg", File("near", shown, f"near-{shown}.jpg")
            other = self.number((host + 1) % self.hosts, page, self.pictures - 1)
            yield (
                f"/mirror/{page}.{file_name(other).rpartition('.')[2]}",
                File("copy", other, file_name(other)),
            )
            yield f"/cut/{page}.jpg", File("cut", -1, "cut.jpg")
            yield f"/fake/{page}.jpg", File("fake", -1)
        yield "/icon.png", File("icon", -1, "icon.png")
        yield "/broken.jpg", File("broken", -1)
        yield "/private/secret.jpg", File("forbidden", -1, "cut.jpg")

    def page(self, host: int, page: int) -> str:
        """Return the HTML of a page; that of the first leads to the others."""
        parts = [self._shown(host, self.number(host, page, picture)) for picture in range(self.pictures)]
        other = self.number((host + 1) % self.hosts, page, self.pictures - 1)
        parts += [
            f'<img src="/mirror/{page}.{file_name(other).rpartition(".")[2]}" alt="Seen elsewhere">',
            f'<img src="/missing/{page}.jpg"><img src="/icon.png" width="16">',
            f'<img src="/{("cut", "fake")[page % 2]}/{page}.jpg">',
        ]
        if page:
            parts.append(f'<img src="/again/{page}.jpg" alt="Once more">')
        elif _is_broken(host):
            parts.append('<img src="/broken.jpg">')
        if page == self.pages - 1:
            parts.append('<img src="/private/secret.jpg">')
        links = (
            "".join(f'<a href="/page/{other}">{other}</a>' for other in range(1, self.pages))
            if not page
            else ""
        )
        return _document(f"Gallery {host}, room {page}", "".join(parts) + links)

    def hub_page(self) -> str:
        links = (f'<a href="{self.url(host, "/")}">{host}</a>' for host in range(self.hosts))
        return _document("Galleries", "".join(links))

    def _shown(self, host: int, number: int) -> str:
        """Return the HTML that shows a wanted picture, with its thumbnail where there is one."""
        path, small = self.path(number), f"/small/{number}.jpg"
        match SHOWN[number % len(SHOWN)]:
            case "img":
                return f'<figure><img src="{path}"><figcaption>Picture {number}</figcaption></figure>'
            case "lazy":
                return f'<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" data-src="{path}" alt="Lazy {number}">'
            case "link":
                return f'<a href="{path}" title="Large"><img src="{small}" alt="Small {number}"></a>'
            case "noscript":
                return f'<noscript><img src="{path}" alt="Plain {number}"></noscript>'
            case "picture":
                return f'<picture><source srcset="{path}"><img src="{small}"></picture>'
            case "srcset":
                return f'<img src="{small}" srcset="{small} 96w, {path} 480w" alt="Two sizes">'
            case "meta":
                return f'<meta property="og:image" content="{self.url(host, path)}">'
            case "json-ld":
                return (
                    '<script type="application/ld+json">{"@type": "ImageObject", '
                    f'"contentUrl": "{self.url(host, path)}", "caption": "Told of {number}"}}</script>'
                )
        return f"<div style=\"background-image: url('{path}')\"></div>"

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Return kind and number of what each address of a picture leads to."""
        return {
            self.url(host, path): (file.kind, file.number)
            for host in range(self.hosts)
            for path, file in self.files[host].items()
        }

    def contents(self) -> dict[str, tuple[str, int]]:
        """Return the same by the SHA-256 of what is there."""
        found: dict[str, tuple[str, int]] = {}
        for files in self.files:
            for file in files.values():
                if file.name and file.kind not in ("copy", "forbidden"):
                    found[_sha256(self.folder / file.name)] = file.kind, file.number
        return found

    def page_urls(self) -> list[str]:
        return [
            self.url(host, f"/page/{page}" if page else "/")
            for host in range(self.hosts)
            for page in range(self.pages)
        ]

    def wanted_urls(self) -> list[str]:
        return [
            self.url(host, self.path(self.number(host, page, picture)))
            for host in range(self.hosts)
            for page in range(self.pages)
            for picture in range(self.pictures)
        ]

    def draw(self) -> Self:
        """Write all files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with multiprocessing.Pool(PROCESSES) as pool:
            pool.starmap(draw, ((self.folder, number) for number in range(self.wanted)), chunksize=50)
        (self.folder / "cut.jpg").write_bytes((self.folder / "near-0.jpg").read_bytes()[:2000])
        (self.folder / "icon.png").write_bytes(_encoded(picture(-1).resize(ICON), "PNG"))
        return self


def _is_broken(host: int) -> bool:
    """Tell whether a host has a picture that always fails. It has no other troubles: after five in a row it would be left alone."""
    return host % 10 == 2


def file_name(number: int) -> str:
    return f"{number}.{'png' if number % 10 == 7 else 'webp' if number % 10 == 8 else 'jpg'}"


def picture(number: int) -> PIL.Image.Image:
    """Return a picture of soft tiles with some grain, unlike that of any other number."""
    dice = random.Random(number)
    tiles = PIL.Image.frombytes("RGB", TILES, dice.randbytes(3 * TILES[0] * TILES[1]))
    grain = PIL.Image.frombytes("L", LARGE, dice.randbytes(LARGE[0] * LARGE[1]))
    soft = tiles.resize(LARGE, PIL.Image.Resampling.BICUBIC)
    return PIL.Image.blend(soft, PIL.Image.merge("RGB", [grain] * 3), 0.06)


def draw(folder: Path, number: int) -> None:
    """Write a picture, its thumbnail and the copy that others show."""
    large, name = picture(number), file_name(number)
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.rpartition(".")[2]]
    if kind == "PNG":  # grain is what PNG cannot compress
        large = large.quantize(64).convert("RGB")
    (folder / name).write_bytes(_encoded(large, kind, quality=85))
    (folder / f"small-{number}.jpg").write_bytes(_encoded(large.resize(THUMBNAIL), "JPEG"))
    (folder / f"near-{number}.jpg").write_bytes(_encoded(large.resize(HALF), "JPEG", quality=60))


def _encoded(pixels: PIL.Image.Image, kind: str, **options: int) -> bytes:
    target = BytesIO()
    pixels.save(target, kind, **options)
    return target.getvalue()


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html><head><title>{title}</title><link rel="icon" href="/icon.png"></head>'
        f"<body><h1>{title}</h1>{body}</body></html>"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
