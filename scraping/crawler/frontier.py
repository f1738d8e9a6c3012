"""What there is still to fetch, and what may begin. Pure: no time, no network, no files."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from scraping.crawler.addresses import site_of
from scraping.crawler.assignment import Assignment
from scraping.crawler.content import Caption
from scraping.politeness.gatekeeper import host_of

MOST_KNOWN = 200_000
"""Addresses. What is found beyond them is not even noted, so that a trap does not fill the memory."""


@dataclass
class Target:
    """An address, and where it was found."""

    url: str
    kind: str
    """``page`` or ``image``."""
    depth: int = 1
    page_url: str = ""
    origin: str = ""
    captions: list[Caption] = field(default_factory=list)
    licence: str = ""
    opt_out: str = ""
    """How the page that shows it opts out."""
    attempts: int = 0

    @property
    def host(self) -> str:
        return host_of(self.url)


class Frontier:
    """The addresses of one crawl. Pictures come before pages, so that they arrive steadily and the queue stays short."""

    def __init__(self, assignment: Assignment) -> None:
        self.counts: Counter[str] = Counter()
        """Pictures by state."""
        self.page_counts: Counter[str] = Counter()
        self.is_truncated = False
        self._assignment = assignment
        self._sites = {site_of(url) for url in assignment.start_urls}
        self._hosts = {host_of(url) for url in assignment.start_urls}
        self._known: set[str] = set()
        self._images: dict[str, deque[Target]] = {}
        self._pages: dict[str, deque[Target]] = {}
        self._active: dict[str, Target] = {}
        self._active_images = 0
        self._begun_pages = 0

    @property
    def found(self) -> int:
        """How many pictures were found so far, those in the queue included."""
        return self.counts.total() + self._active_images + sum(map(len, self._images.values()))

    @property
    def pages_known(self) -> int:
        """How many pages were, or will be, visited as far as is known."""
        waiting = sum(map(len, self._pages.values()))
        return min(self._assignment.caps.pages, self._begun_pages + waiting)

    @property
    def has_all_images(self) -> bool:
        """As many pictures were saved as were asked for."""
        return self.counts["saved"] >= self._assignment.caps.images

    @property
    def has_room_for_images(self) -> bool:
        """One more picture may be fetched without any danger of there being too many."""
        return self.counts["saved"] + self._active_images < self._assignment.caps.images

    def hosts(self) -> list[str]:
        """Return the hosts for which something waits."""
        return [host for queues in (self._images, self._pages) for host, queue in queues.items() if queue]

    def may_visit(self, url: str, depth: int) -> bool:
        """Tell whether a link is to be followed."""
        assignment = self._assignment
        if depth > assignment.depth or assignment.follow == "nowhere":
            return False
        if assignment.follow == "host":
            return host_of(url) in self._hosts
        return assignment.follow == "anywhere" or site_of(url) in self._sites

    def add(self, target: Target) -> bool:
        """Note an address. Returns False for one that is known."""
        if target.url in self._known:
            return False
        if len(self._known) >= MOST_KNOWN:
            self.is_truncated = True
            return False
        self._known.add(target.url)
        self._queue(target).append(target)
        return True

    def know(self, url: str) -> bool:
        """Note an address that is dealt with. Returns False for one that was known."""
        is_new = url not in self._known
        self._known.add(url)
        return is_new

    def adopt(self, url: str) -> None:
        """Let links lead to where a start page has redirected."""
        self._sites.add(site_of(url))
        self._hosts.add(host_of(url))

    def put_back(self, target: Target) -> None:
        """Take an address back that could not be fetched, behind all others of its host."""
        self._leave(target)
        if target.kind == "page":
            self._begun_pages -= 1
        target.attempts += 1
        self._queue(target).append(target)

    def pop(self, host: str) -> Target | None:
        """Return what is to be fetched next from a host, or None if nothing may begin now."""
        images, pages = self._images.get(host), self._pages.get(host)
        if images and self.has_room_for_images:
            target = images.popleft()
            self._active_images += 1
        elif pages and self._begun_pages < self._assignment.caps.pages:
            target = pages.popleft()
            self._begun_pages += 1
        else:
            return None
        self._active[target.url] = target
        return target

    def count(self, kind: str, state: str) -> None:
        """Count an end that somebody else has come to: in an earlier attempt, or without fetching."""
        (self.counts if kind == "image" else self.page_counts)[state] += 1

    def begun_before(self) -> None:
        """Count a page that an earlier attempt has visited."""
        self._begun_pages += 1

    def end(self, target: Target, state: str) -> None:
        """Note that an address that was given out has come to its end."""
        self._leave(target)
        self.count(target.kind, state)

    def turns_out_image(self, target: Target) -> bool:
        """Note that what was thought to be a page is a picture. Returns False if there is no room for it."""
        if not self.has_room_for_images:
            return False
        self._begun_pages -= 1
        self._active_images += 1
        target.kind = "image"
        return True

    def drain(self) -> list[Target]:
        """Take out all that has not come to an end, what is on its way included, and return it."""
        rest = list(self._active.values())
        for queues in (self._images, self._pages):
            rest += [target for queue in queues.values() for target in queue]
            queues.clear()
        self._active.clear()
        self._active_images = 0
        return rest

    def _leave(self, target: Target) -> None:
        del self._active[target.url]
        if target.kind == "image":
            self._active_images -= 1

    def _queue(self, target: Target) -> deque[Target]:
        queues = self._images if target.kind == "image" else self._pages
        return queues.setdefault(target.host, deque())


def seeds(assignment: Assignment) -> Iterable[Target]:
    """Yield what an assignment begins with."""
    for url in assignment.image_urls:
        yield Target(url, "image", origin="list")
    for url in assignment.start_urls:
        yield Target(url, "page")
