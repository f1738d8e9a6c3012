"""What may be reached: the rules, and what the operator has taken out of them."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Self

from imagehub.egress.addresses import Address, Network, is_own, is_public, unwrapped
from imagehub.egress.hosts import Host, is_local_name, read_host
from imagehub.errors import ImageHubError, Invalid

_ENTRY = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*:[^\[\]]*)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")

WEB_PORTS = frozenset({80, 443})

NOT_PUBLIC = "This address is not fetched: it leads into a private network, or to this server itself."
"""One sentence for open, closed and filtered, for names and numbers, so that nobody explores a network by it."""


class BlockedAddress(Invalid):
    """An address that is not fetched. ``pointer`` is the JSON pointer of the field that it came in, if it came in one."""

    def __init__(self, detail: str = NOT_PUBLIC, *, pointer: str = "/url") -> None:
        super().__init__(detail, pointer=pointer, code="blocked_address")


class FetchFailed(ImageHubError):
    """An address that may be fetched did not give what was asked for.

    The text is the same whatever happened. ``reason`` is for staff: ``unresolved``, ``unreachable``, ``timeout``,
    ``protocol``, ``encoding``, ``headers_too_large``, ``body_too_large`` or ``redirects``.
    """

    code = "fetch_failed"
    title = "The address could not be fetched"

    def __init__(self, reason: str) -> None:
        super().__init__("The address could not be fetched.")
        self.reason = reason


@dataclass(frozen=True)
class Allowed:
    """Hosts and networks for which the rules about addresses, ports and own names do not hold."""

    hosts: frozenset[tuple[Host, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def read(cls, entries: Iterable[str]) -> Self:
        """Read a list of ``host``, ``host:port``, ``[IPv6]:port`` and networks such as ``10.0.0.0/8``.

        Raises:
            ValueError: its text is the entry that is none of these.
        """
        hosts: set[tuple[Host, int | None]] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                if "/" in entry:
                    networks.append(ip_network(entry))
                else:
                    hosts.add(_host_and_port(entry))
            except ValueError:
                raise ValueError(entry) from None
        return cls(frozenset(hosts), tuple(networks))

    def names(self, host: Host, port: int) -> bool:
        """Tell whether the list names this host, with any port or this one."""
        return (host, None) in self.hosts or (host, port) in self.hosts

    def contains(self, address: Address) -> bool:
        """Tell whether one of the networks has this address."""
        return any(unwrapped(address) in network or address in network for network in self.networks)


def _host_and_port(entry: str) -> tuple[Host, int | None]:
    if entry.count(":") > 1 and "[" not in entry:
        return read_host(entry), None  # an IPv6 address
    parts = _ENTRY.fullmatch(entry)
    if parts is None or (parts["port"] and not 0 < int(parts["port"]) < 65536):
        raise ValueError(entry)
    return read_host(parts["ipv6"] or parts["host"]), int(parts["port"]) if parts["port"] else None


@dataclass(frozen=True)
class Policy:
    """What may be reached. Without arguments: the public internet, on the ports of the web.

    ``own_hosts`` are the names of this server as Django writes them (``.example.net`` has all below it).
    """

    allowed: Allowed = field(default_factory=Allowed)
    own_hosts: tuple[str, ...] = ()
    ports: frozenset[int] = WEB_PORTS

    @classmethod
    def read(
        cls,
        *,
        allow_private: Iterable[str] = (),
        own_hosts: Iterable[str] = (),
        ports: Iterable[int] = WEB_PORTS,
    ) -> Self:
        """Build a policy from what can stand in JSON; for ``allow_private`` see :meth:`Allowed.read`.

        Raises:
            ValueError: an entry of ``allow_private`` cannot be read.
        """
        return cls(Allowed.read(allow_private), tuple(own_hosts), frozenset(ports))

    def check_host(self, host: Host, port: int) -> None:
        """Refuse what can be known without a look-up.

        A network that is allowed helps a name only in :meth:`check_connection`: by its text it is still refused if it can
        only be a private one, or for its port.

        Raises:
            BlockedAddress: this host, or this port of it, is not to be reached.
        """
        if self.allowed.names(host, port):
            return
        if not isinstance(host, str):
            self._check_addresses([host], port)
        elif is_local_name(host) or self._is_own_name(host):
            raise BlockedAddress
        elif port not in self.ports:
            raise self._blocked_port()

    def check_connection(self, host: str, port: int, answers: Collection[str]) -> None:
        """Refuse a connection. ``answers`` are all the addresses that a look-up gave, and one bad one spoils them all.

        Raises:
            BlockedAddress: no connection to any of them is to be made.
        """
        try:
            wanted = read_host(host)
            addresses = [ip_address(answer) for answer in answers]
        except ValueError:
            raise BlockedAddress from None
        self.check_host(wanted, port)
        if not self.allowed.names(wanted, port):
            self._check_addresses(addresses, port)

    def _check_addresses(self, addresses: Iterable[Address], port: int) -> None:
        for address in addresses:
            if self.allowed.contains(address):
                continue
            if not is_public(address) or is_own(address) or self._is_own_name(address):
                raise BlockedAddress
            if port not in self.ports:
                raise self._blocked_port()

    def _is_own_name(self, host: Host) -> bool:
        """As Django compares a host with ``ALLOWED_HOSTS``. ``*`` names nobody."""
        name = f"[{host}]" if not isinstance(host, str) and host.version == 6 else str(host)
        return any(
            name == own.lower().removeprefix(".") or (own.startswith(".") and name.endswith(own.lower()))
            for own in self.own_hosts
        )

    def _blocked_port(self) -> BlockedAddress:
        ports = ", ".join(str(port) for port in sorted(self.ports))
        return BlockedAddress(f"This port is not fetched from; these are: {ports}.")
