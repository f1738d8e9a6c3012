"""How the end of an address is written down and told: one flat object, with its provenance."""

import time
from collections.abc import Iterator
from dataclasses import asdict

from scraping.crawler.content import Caption, Content
from scraping.crawler.fetching import Trail
from scraping.crawler.frontier import Target
from scraping.crawler.journal import Entry
from scraping.crawler.pictures import Picture


def image_entry(
    target: Target, trail: Trail, state: str, reason: str, picture: Picture | None = None
) -> Entry:
    """Return the end of a picture."""
    entry = _entry("image", target, trail, state, reason) | {
        "origin": target.origin,
        "captions": [one._asdict() for one in target.captions],
        "licence": target.licence,
        "opt_out": trail.opt_out or target.opt_out,
    }
    if picture is not None:
        entry |= asdict(picture) | {"fingerprint": str(picture.fingerprint)}
    if state == "saved" and picture is not None:
        entry["file"] = picture.name
    return entry


def page_entry(
    target: Target,
    trail: Trail,
    state: str,
    reason: str,
    content: Content | None = None,
    opt_out: str = "",
) -> Entry:
    """Return the end of a page, with what it holds: a crawl that goes on has it from here."""
    content = content or Content()
    links = list(content.links) if content.may_follow else []
    return _entry("page", target, trail, state, reason) | {
        "depth": target.depth,
        "opt_out": opt_out or trail.opt_out,
        "images_found": len(content.pictures),
        "links_found": len(links),
        "links": links,
        "pictures": [[one.url, one.origin, one.captions, one.licence] for one in content.pictures.values()],
    }


def targets_of(entry: Entry) -> Iterator[Target]:
    """Yield what a page holds: its pictures first, then its links."""
    for url, origin, captions, licence in entry["pictures"]:
        yield Target(
            url,
            "image",
            depth=entry["depth"],
            page_url=entry["final_url"],
            origin=origin,
            captions=[Caption(*one) for one in captions],
            licence=licence,
            opt_out=entry["opt_out"],
        )
    for url in entry["links"]:
        yield Target(url, "page", depth=entry["depth"] + 1, page_url=entry["final_url"])


def _entry(kind: str, target: Target, trail: Trail, state: str, reason: str) -> Entry:
    return {
        "kind": kind,
        "url": target.url,
        "state": state,
        "reason": reason,
        "page_url": target.page_url,
        "final_url": trail.url,
        "redirects": trail.redirects,
        "status": trail.status,
        "robots": trail.robots,
        "attempts": target.attempts + 1,
        "at": round(time.time(), 3),
        "received": trail.received,
    }
