"""Which addresses belong to the public internet, and which to somebody's own network.

The lists are our own: ``is_private`` and ``is_global`` of Python's ``ipaddress`` miss some of these, and say different things
in different patch releases. Sources are IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890), and
what clouds answer under.
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

BLOCKED_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind carriers' NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server, from a public range
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)

PUBLIC_IPV6 = IPv6Network("2000::/3")
"""All that has been given out. Loopback, mapped, compatible, link-local, site-local, unique local and multicast lie outside."""

BLOCKED_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments; Teredo, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)

IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix of RFC 6052. A network without IPv4 reaches all of IPv4 by it."""


def unwrapped(address: Address) -> Address:
    """Return where a connection to this address really leads: the IPv4 address that a mapped or NAT64 one carries.

    Other forms that carry one (compatible, 6to4, Teredo, local NAT64) are refused whole, whatever they carry.
    """
    if isinstance(address, IPv6Address) and (address in IPV4_MAPPED or address in NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address | str) -> bool:
    """Tell whether this is an address of the public internet. What is no address is not."""
    try:
        address = unwrapped(ip_address(address))
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in BLOCKED_IPV4)
    if address.scope_id is not None or address not in PUBLIC_IPV6:
        return False
    return not any(address in network for network in BLOCKED_IPV6)


def is_own(address: Address) -> bool:
    """Tell whether this machine has the address itself. Nothing is sent for it.

    A datagram socket that is pointed at an address only asks the kernel for a route; to one of our own it leads from that
    same address.
    """
    address = unwrapped(address)
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:  # no route
        return False
