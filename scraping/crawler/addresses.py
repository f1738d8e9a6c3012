"""Addresses as they stand in pages: which of them are any, and which belong together."""

import re
from urllib.parse import urljoin, urlsplit, urlunsplit

from tldextract import TLDExtract
from w3lib.url import safe_url_string

LONGEST = 2048
"""Characters. Longer addresses are not followed: most of them are traps or data."""

PICTURE_ENDINGS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "avif", "heic", "heif", "bmp", "tif", "tiff", "jxl"}
)
OTHER_ENDINGS = frozenset(
    {
        "css",
        "js",
        "json",
        "zip",
        "gz",
        "tar",
        "rar",
        "7z",
        "exe",
        "dmg",
        "iso",
        "apk",
        "pdf",
        "doc",
        "docx",
        "xls",
        "xlsx",
    }
    | {
        "ppt",
        "pptx",
        "mp3",
        "m4a",
        "ogg",
        "wav",
        "flac",
        "mp4",
        "m4v",
        "webm",
        "mov",
        "avi",
        "mkv",
        "woff",
        "woff2",
    }
    | {"ttf", "otf", "eot", "ico", "svg", "safetensors", "ckpt", "torrent"}
)
"""Links to these are neither pages nor pictures."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_FOREIGN = re.compile(r'[\s\x00-\x1f\x7f<>"{}|\\^`]')
"""Never part of an address: what holds one is text, a template, or an attempt to confuse parsers."""
_ROOTED = re.compile(r"/[!$-;=?-\[\]_a-z~]*", re.ASCII)
"""A path from the root that needs no work, if it has neither dots to resolve nor another host at its beginning."""
_PLAIN = re.compile(r"https?://[a-z0-9.-]+/[!$-;=?-\[\]_a-z~]*", re.ASCII)
"""An address that needs no work, if it has no dots to resolve: no port, no fragment and no strange character."""

# The bundled list only: what a crawl may do must not depend on a download.
# Sites of different people on one hoster (somebody.github.io) are different sites.
_suffixes = TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


class Base:
    """Makes addresses of what a page refers to."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"

    def absolute(self, reference: str | None) -> str:
        """Return the address that a reference leads to, or an empty text if it is none of the web.

        Two spellings of one address become one; the fragment goes.
        """
        if not reference:
            return ""
        if _ROOTED.fullmatch(reference) and reference[1:2] != "/" and "/." not in reference:
            url = self._origin + reference
            return url if len(url) <= LONGEST else ""
        reference = reference.strip()
        if not reference or len(reference) > LONGEST or _FOREIGN.search(reference):
            return ""
        if _PLAIN.fullmatch(reference) and "/." not in reference:
            return reference
        try:
            return _normal(urljoin(self.url, reference))
        except ValueError:
            return ""


def normal(url: str) -> str:
    """Return the one spelling of an address, or an empty text if it is none of the web."""
    return Base(url).absolute(url) if url.lower().startswith(("http://", "https://")) else ""


def _normal(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    _ = parts.port  # raises ValueError for one that is none
    netloc = parts.netloc.lower() if "@" not in parts.netloc else parts.netloc
    netloc = netloc.removesuffix(_DEFAULT_PORTS[parts.scheme])
    found = urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
    found = safe_url_string(found)
    return found if len(found) <= LONGEST else ""


def ending(url: str) -> str:
    """Return what the last part of a path ends in, in small letters: ``jpg``; empty if it has no ending."""
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def site_of(url: str) -> str:
    """Return the registrable domain of an address (``example.co.uk``), or its host where it has none.

    The domain of a name that only a private network knows begins before its last dot, by the list's own default
    (https://github.com/publicsuffix/list/wiki/Format).
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    found = _suffixes(host)
    if found.suffix or found.ipv4 or ":" in host:
        return found.top_domain_under_public_suffix or host
    return ".".join(host.split(".")[-2:])
