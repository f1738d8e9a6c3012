"""The pictures and links of feeds (RSS, Atom) and of sitemaps."""

from typing import Any, TypeAlias

from lxml import etree

from scraping.crawler.addresses import OTHER_ENDINGS, PICTURE_ENDINGS, Base, ending
from scraping.crawler.candidates import Candidate, best
from scraping.crawler.content import Caption, Content, caption
from scraping.crawler.extraction import extract

Element: TypeAlias = Any
"""An element of lxml, which brings no types."""

ROOTS = frozenset({"rss", "RDF", "feed", "urlset", "sitemapindex"})
MOST_ENTRIES = 50_000
"""Of a sitemap (https://www.sitemaps.org/protocol.html)."""


def is_xml(body: bytes, content_type: str) -> bool:
    """Tell whether a page is to be read as a feed or a sitemap, and not as HTML."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        return False
    return kind.endswith(("/xml", "+xml")) or body.lstrip()[:5] == b"<?xml"


def extract_feed(body: bytes, url: str) -> Content:
    """Return what a feed or a sitemap holds; nothing if it is neither. Entities are not resolved."""
    parser = etree.XMLParser(
        recover=True,
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        remove_pis=True,
    )
    content = Content()
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        return content
    if root is None or _name(root) not in ROOTS:
        return content
    base = Base(url)
    for number, entry in enumerate(root.iter("{*}item", "{*}entry", "{*}url", "{*}sitemap")):
        if number >= MOST_ENTRIES:
            break
        _read_entry(entry, base, content)
    return content


def _read_entry(entry: Element, base: Base, content: Content) -> None:
    title = next((caption(one.text, "title") for one in entry if _name(one) == "title"), None)
    media: list[Candidate] = []
    thumbnails: list[Candidate] = []
    for element in entry.iter(etree.Element):
        match _name(element):
            case "content" if element.get("url"):
                if (element.get("medium") or "image") == "image" and _is_picture(element):
                    media.append(Candidate(element.get("url") or "", _number(element.get("width"))))
            case "thumbnail" if element.get("url"):
                thumbnails.append(Candidate(element.get("url") or "", _number(element.get("width"))))
            case "enclosure" if _is_picture(element):
                content.add(base.absolute(element.get("url")), "feed", title)
            case "link":
                _read_link(element, base, content, title)
            case "image":
                _read_image(element, base, content, title)
            case "loc" if element.getparent() is entry:
                _follow(base.absolute(element.text), content, title)
            case "description" | "encoded" | "content" | "summary" if element.text and "<" in element.text:
                inner = extract(element.text.encode(), base.url)
                for picture in inner.pictures.values():
                    content.add(picture.url, "feed", *picture.captions, title, licence=picture.licence)
    content.add(base.absolute(best(media or thumbnails)), "feed", title)


def _read_link(element: Element, base: Base, content: Content, title: Caption | None) -> None:
    relation, href = element.get("rel") or "alternate", element.get("href") or element.text
    if relation == "enclosure" and _is_picture(element):
        content.add(base.absolute(href), "feed", title)
    elif relation == "alternate":
        _follow(base.absolute(href), content, title)


def _read_image(element: Element, base: Base, content: Content, title: Caption | None) -> None:
    """Read an image of a sitemap (``image:loc``) or of a podcast (``itunes:image``)."""
    parts = {_name(part): part.text for part in element}
    words = caption(parts.get("caption"), "sitemap") or caption(parts.get("title"), "title") or title
    reference = element.get("href") or parts.get("loc") or parts.get("url")
    content.add(base.absolute(reference), "feed", words, licence=base.absolute(parts.get("license")))


def _follow(url: str, content: Content, title: Caption | None) -> None:
    if not url:
        return
    if ending(url) in PICTURE_ENDINGS:
        content.add(url, "feed", title)
    elif ending(url) not in OTHER_ENDINGS:
        content.links[url] = None


def _is_picture(element: Element) -> bool:
    kind = (element.get("type") or "").lower()
    if kind:
        return kind.startswith("image/")
    return ending(element.get("url") or element.get("href") or "") in PICTURE_ENDINGS or bool(
        element.get("medium")
    )


def _name(element: Element) -> str:
    return etree.QName(element).localname


def _number(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 7 else 0.0
