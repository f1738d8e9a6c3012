"""The guard of a Scrapy crawl. Only the crawler imports this: nobody else waits for Scrapy to load.

Scrapy has one place through which every request goes, whoever made it (a page, a redirect, robots.txt): the download handler.
Twisted has one that is asked for every address before a connection is made, also for those that are numbers already: the
resolver of host names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.exceptions import CannotResolveHostError
from scrapy.resolver import CachingHostnameResolver
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from zope.interface import implementer

from imagehub.egress.hosts import read_host
from imagehub.egress.policy import BlockedAddress, Policy
from imagehub.egress.urls import DEFAULT_PORTS, refuse_downgrade, vet_url

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.internet.interfaces import IAddress

MAX_REDIRECTS = 5


def guard_settings(policy: Policy) -> dict[str, Any]:
    """Return the settings that put a crawl under the guard. They go last, over all others.

    They are settings of the process: Scrapy asks it, and not its one crawl, which resolver to use.
    """
    handler = f"{__name__}.{GuardedDownloadHandler.__name__}"
    return {
        "EGRESS_POLICY": policy,
        "TWISTED_DNS_RESOLVER": f"{__name__}.{GuardedResolver.__name__}",
        "DOWNLOAD_HANDLERS": {
            "http": handler,
            "https": handler,
            "data": None,
            "file": None,
            "ftp": None,
            "s3": None,
        },
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "HTTPPROXY_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        "REDIRECT_MAX_TIMES": MAX_REDIRECTS,
        # Two doors into the crawl, which are open by default: each runs whatever Python it is sent.
        "REMOTE_CONTROL_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
    }


class GuardedResolver(CachingHostnameResolver):
    """Tells Twisted the addresses of a host if the policy lets it connect to every one of them, and none otherwise.

    It stands outside of the cache, so that what was looked up before is looked at again.
    """

    def __init__(self, reactor: Any, cache_size: int, policy: Policy) -> None:
        super().__init__(reactor, cache_size)
        self._policy = policy
        self._refused: dict[tuple[str, int], BlockedAddress] = {}

    @classmethod
    def from_crawler(cls, crawler: "Crawler", reactor: Any) -> Self:
        """Build it as Scrapy does. Without :func:`guard_settings` there is no policy, and no crawl."""
        settings = crawler.settings
        cache_size = settings.getint("DNSCACHE_SIZE") if settings.getbool("DNSCACHE_ENABLED") else 0
        return cls(reactor, cache_size, _policy_of(crawler))

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: "Sequence[type[IAddress]] | None" = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """Look a host up; see Twisted's ``IHostnameResolver``."""
        receiver = _VettingReceiver(self, resolutionReceiver, hostName, portNumber)
        if not self.permits(hostName, portNumber, []):
            receiver.resolutionBegan(receiver)
            receiver.resolutionComplete()
            return receiver
        return super().resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)

    def permits(self, host: str, port: int, addresses: list[str]) -> bool:
        """Tell whether a connection to these addresses of a host may be made, and remember why not."""
        try:
            self._policy.check_connection(host, port, addresses)
        except BlockedAddress as error:
            self._refused[_spelling(host), port] = error
            return False
        if addresses:
            self._refused.pop((_spelling(host), port), None)
        return True

    def refusal(self, host: str, port: int) -> BlockedAddress | None:
        """Return why the last connection to a host was refused; None if it was not."""
        return self._refused.get((_spelling(host), port))


@implementer(IResolutionReceiver, IHostResolution)
class _VettingReceiver:
    """Holds addresses back until all are known: one bad one spoils them all."""

    def __init__(
        self, resolver: GuardedResolver, receiver: IResolutionReceiver, host: str, port: int
    ) -> None:
        self.name = host
        self._resolver = resolver
        self._receiver = receiver
        self._port = port
        self._addresses: list[Any] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: "IAddress") -> None:  # noqa: N802
        self._addresses.append(address)

    def resolutionComplete(self) -> None:  # noqa: N802
        if self._resolver.permits(self.name, self._port, [address.host for address in self._addresses]):
            for address in self._addresses:
                self._receiver.addressResolved(address)
        self._receiver.resolutionComplete()

    def cancel(self) -> None:
        """Do nothing: it has ended before anybody could call it off."""


class GuardedDownloadHandler(HTTP11DownloadHandler):
    """Downloads what the policy lets it, and nothing without a :class:`GuardedResolver` under it."""

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        self._policy = _policy_of(crawler)

    async def download_request(self, request: "Request") -> "Response":
        """Download one answer.

        Raises:
            BlockedAddress: the address, or what it resolves to, is not to be fetched. Nothing was sent.
        """
        from twisted.internet import reactor

        resolver = reactor.nameResolver  # type: ignore[attr-defined]
        if not isinstance(resolver, GuardedResolver):
            raise RuntimeError("Nobody looks at what host names resolve to: see guard_settings.")
        if request.meta.get("proxy"):
            raise BlockedAddress("Nothing is fetched by way of a proxy.")
        url = vet_url(request.url, self._policy)
        refuse_downgrade(request.meta.get("redirect_urls", ()), url)
        try:
            return await super().download_request(request)
        except CannotResolveHostError:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_PORTS[parts.scheme]
            if refusal := resolver.refusal(parts.hostname or "", port):
                raise BlockedAddress(str(refusal)) from None
            raise


def _policy_of(crawler: "Crawler") -> Policy:
    policy = crawler.settings["EGRESS_POLICY"]
    if not isinstance(policy, Policy):
        raise TypeError("Nobody says what this crawl may reach: see guard_settings.")
    return policy


def _spelling(host: str) -> str:
    """The one spelling of a host: Twisted asks for names of other scripts in these."""
    try:
        return str(read_host(host))
    except ValueError:
        return host
