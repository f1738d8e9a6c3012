"""The pictures and links of an HTML page: every way of showing a picture, and for each picture the best of its files."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from lxml import etree

from scraping.crawler import structured
from scraping.crawler.addresses import OTHER_ENDINGS, PICTURE_ENDINGS, Base, ending
from scraping.crawler.candidates import SINGLE, SRCSETS, UNTAKEN_ENDINGS, Candidate, best, of_srcset
from scraping.crawler.content import Caption, Content, caption
from scraping.politeness.opt_outs import opted_out_by_meta

Element: TypeAlias = Any
"""An element of lxml, which brings no types."""

FEED_TYPES = frozenset({"application/rss+xml", "application/atom+xml", "application/feed+json"})
META_PICTURES = frozenset(
    {"og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src"}
)
META_CAPTIONS = frozenset({"og:image:alt", "twitter:image:alt"})
BACKGROUND_NAMES = {"data-bg", "data-background", "data-background-image", "data-bg-src"}
BACKGROUNDS = "//*[" + " or ".join(f"@{name}" for name in sorted(BACKGROUND_NAMES)) + "]"
"""Where lazy loaders put what becomes a background; as a question to the page."""

CAPTIONS = ("alt", "title", "aria-label")

_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"')]+))\s*\)", re.IGNORECASE)
_PARSER = {
    "recover": True,
    "huge_tree": False,
    "no_network": True,
    "remove_comments": True,
    "remove_pis": True,
}


def extract(body: bytes, url: str, encoding: str = "utf-8") -> Content:
    """Return what an HTML page holds.

    Args:
        body: as the server sent it, decompressed.
        url: where it was found; references start there, or from its ``<base>``.
        encoding: of the text.
    """
    if encoding.lower().startswith(("utf-16", "utf-32")):
        body, encoding = body.decode(encoding, "replace").encode(), "utf-8"
    try:
        parser = etree.HTMLParser(encoding=encoding, **_PARSER)
    except LookupError:
        parser = etree.HTMLParser(encoding="utf-8", **_PARSER)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        root = None
    if root is None:
        return Content()
    return _Page(root, url).read(body)


class _Page:
    """One walk over a page. What an element means for those inside it is noted when the walk comes by."""

    def __init__(self, root: Element, url: str) -> None:
        self._root = root
        self.base = Base(url)
        for element in root.iter("base"):
            # A base elsewhere is as good as one at home: each address is looked at for itself, later.
            self.base = Base(self.base.absolute(element.get("href")) or url)
            break
        self.content = Content()
        self._metas: list[tuple[str, str]] = []
        self._meta_pictures: list[str] = []
        self._meta_caption: Caption | None = None
        self._figures: dict[Element, tuple[Caption | None, str]] = {}
        self._own_licences: set[Element] = set()
        self._linked: dict[Element, tuple[str, Caption | None]] = {}
        self._sources: dict[Element, list[Candidate]] = {}
        self._readers: dict[str, Callable[[Element], None]] = {
            "a": self._link,
            "area": self._link,
            "amp-img": self._image,
            "figure": self._figure,
            "frame": self._frame,
            "iframe": self._frame,
            "image": self._svg_image,
            "img": self._image,
            "input": self._input,
            "link": self._link_element,
            "meta": self._meta,
            "object": self._object,
            "picture": self._picture,
            "script": self._script,
            "style": self._style,
            "video": self._video,
        }

    def read(self, body: bytes) -> Content:
        """Return what there is. The text of the page spares looking for what does not occur in it."""
        readers = self._readers
        for element in self._root.iter(*readers):
            readers[element.tag](element)
        if b"style" in body:
            for element in self._root.xpath("//*[contains(@style, '(')]"):
                self._css(element.get("style"), element)
        if b"data-b" in body:
            for element in self._root.xpath(BACKGROUNDS):
                for name in BACKGROUND_NAMES.intersection(element.keys()):
                    self._add(element.get(name), "css", *_captions(element))
        for reference in self._meta_pictures:
            self._add(reference, "meta", self._meta_caption)
        content = self.content
        content.opt_out = opted_out_by_meta(self._metas)
        content.may_follow = not any(
            name.lower() == "robots" and "nofollow" in text.lower() for name, text in self._metas
        )
        for picture in content.pictures.values():
            picture.licence = picture.licence or content.licence
        return content

    def _add(self, reference: str | None, origin: str, *captions: Caption | None, licence: str = "") -> None:
        self.content.add(self.base.absolute(reference), origin, *captions, licence=licence)

    def _image(self, element: Element) -> None:
        attributes = dict(element.items())
        words = _captions(attributes)
        figure, licence = self._figures.get(element, (None, ""))
        target, title = self._linked.get(element, ("", None))
        url = target or self._best_of(attributes, self._sources.get(element, ()))
        self.content.add(url, "link" if target else "img", *words, figure, title, licence=licence)

    def _best_of(self, attributes: Mapping[str, str], sources: Iterable[Candidate]) -> str:
        """Return the address of the best file of an image: a file that is taken, then one for high resolutions."""
        candidates = list(sources)
        for name in SRCSETS:
            if name in attributes:
                candidates += of_srcset(attributes[name])
        if candidates:
            candidates = [one for one in candidates if self.base.absolute(one.reference)]
            if any(one.is_taken for one in candidates):
                return self.base.absolute(best(candidates))
        for name in sorted(attributes.keys() & SINGLE.keys(), key=SINGLE.__getitem__):
            if url := self.base.absolute(attributes[name]):
                if not candidates or ending(url) not in UNTAKEN_ENDINGS:
                    return url
                break
        return self.base.absolute(best(candidates))

    def _picture(self, element: Element) -> None:
        candidates = [
            candidate
            for source in element.iter("source")
            for name in SRCSETS
            if source.get(name)
            for candidate in of_srcset(source.get(name), source.get("type"))
        ]
        image = next(element.iter("img"), None)
        if image is not None:
            self._sources[image] = candidates
        else:
            self._add(best(candidates), "img")

    def _figure(self, element: Element) -> None:
        text = next(element.iter("figcaption"), None)
        words = None if text is None else caption(_text(text), "figcaption")
        licence = ""
        for link in element.iter("a"):
            if _is_licence(link):
                self._own_licences.add(link)
                licence = self.base.absolute(link.get("href"))
        for image in element.iter("img", "amp-img"):
            self._figures[image] = words, licence

    def _link(self, element: Element) -> None:
        url = self.base.absolute(element.get("href"))
        if not url:
            return
        if _is_licence(element):
            if element not in self._own_licences:
                self.content.licence = self.content.licence or url
            return
        kind = ending(url)
        if kind in PICTURE_ENDINGS:
            title = caption(element.get("title"), "title") or caption(element.get("aria-label"), "aria-label")
            images = list(element.iter("img", "amp-img"))
            for image in images:
                self._linked[image] = url, title
            if not images:
                words = caption(_text(element), "link") if element.tag == "a" else None
                self.content.add(url, "link", title, words)
        elif kind not in OTHER_ENDINGS:
            self.content.links[url] = None

    def _frame(self, element: Element) -> None:
        self._follow(element.get("src") or element.get("data-src"))

    def _svg_image(self, element: Element) -> None:
        self._add(element.get("href") or element.get("xlink:href"), "svg", *_captions(element))

    def _input(self, element: Element) -> None:
        if (element.get("type") or "").lower() == "image":
            self._add(element.get("src"), "input", *_captions(element))

    def _object(self, element: Element) -> None:
        if (element.get("type") or "").lower().startswith("image/"):
            self._add(element.get("data"), "object", *_captions(element))

    def _video(self, element: Element) -> None:
        self._add(element.get("poster"), "poster", *_captions(element))

    def _link_element(self, element: Element) -> None:
        relations = (element.get("rel") or "").lower().split()
        if "image_src" in relations:
            self._add(element.get("href"), "link")
        elif "preload" in relations and (element.get("as") or "").lower() == "image":
            self._add(best(of_srcset(element.get("imagesrcset"))) or element.get("href"), "preload")
        elif "license" in relations:
            self.content.licence = self.content.licence or self.base.absolute(element.get("href"))
        elif "next" in relations or ("alternate" in relations and element.get("type") in FEED_TYPES):
            self._follow(element.get("href"))

    def _follow(self, reference: str | None) -> None:
        if url := self.base.absolute(reference):
            self.content.links[url] = None

    def _meta(self, element: Element) -> None:
        name = element.get("property") or element.get("name") or ""
        text = element.get("content") or ""
        self._metas.append((name, text))
        name = name.lower()
        if name in META_PICTURES or (element.get("itemprop") or "").lower() == "image":
            self._meta_pictures.append(text)
        elif name in META_CAPTIONS:
            self._meta_caption = self._meta_caption or caption(text, name)

    def _script(self, element: Element) -> None:
        if (element.get("type") or "").lower().startswith("application/ld+json") and element.text:
            for picture in structured.pictures(element.text):
                licence = self.base.absolute(picture.licence)
                self._add(picture.reference, "json-ld", caption(picture.caption, "json-ld"), licence=licence)

    def _style(self, element: Element) -> None:
        self._css(element.text or "", None)

    def _css(self, text: str, element: Element | None) -> None:
        words = () if element is None else _captions(element)
        for match in _CSS_URL.finditer(text):
            reference = match[1] or match[2] or match[3]
            url = self.base.absolute(reference)
            if url and ending(url) not in OTHER_ENDINGS:
                self.content.add(url, "css", *words)


def _captions(attributes: Mapping[str, str] | Element) -> list[Caption | None]:
    return [caption(attributes.get(name), name) for name in CAPTIONS if attributes.get(name)]


def _text(element: Element) -> str:
    return " ".join(element.itertext()) if len(element) else element.text or ""


def _is_licence(element: Element) -> bool:
    relation = element.get("rel")
    is_related = relation is not None and "license" in relation.lower().split()
    return is_related or element.get("itemprop") == "license"
