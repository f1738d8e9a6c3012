"""Hosts as addresses name them: one spelling for each, and none that two programs could read differently."""

import re
from ipaddress import IPv4Address, IPv6Address

import idna

from imagehub.egress.addresses import Address

Host = str | Address
"""A name in lower-case ASCII without a dot at its end, or an address of the network."""

LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""How the last label of an IPv4 address looks in any spelling; no top-level domain does (WHATWG URL, "ends in a number")."""

MAX_NAME_LENGTH = 253
LOCAL_SUFFIXES = ("localhost", "local", "internal", "home.arpa", "onion")
"""Names that never lead to the public internet: RFC 6761, 6762, 8375, 7686, and ICANN's reservation of ``internal``."""


def read_host(text: str) -> Host:
    """Return the host that this text names; IPv6 addresses come without brackets.

    Numbers of other bases and other lengths (``0x7f.1``, ``2130706433``) are addresses to some programs and names to
    others, so they are neither here. Full-width digits, dots and letters are read as what they stand for.

    Raises:
        ValueError: it is no host.
    """
    if ":" in text:
        address = IPv6Address(text)
        if address.scope_id is not None:
            raise ValueError("an interface has no place in an address")
        return address
    name = (text.lower() if text.isascii() else idna.encode(text, uts46=True).decode("ascii")).removesuffix(
        "."
    )
    labels = name.split(".")
    if NUMBER.fullmatch(labels[-1]):
        return IPv4Address(name)
    if len(name) > MAX_NAME_LENGTH or not all(LABEL.fullmatch(label) for label in labels):
        raise ValueError("no host has such a name")
    return name


def is_local_name(name: str) -> bool:
    """Tell whether a name can only be one of somebody's own network."""
    return "." not in name or any(name == suffix or name.endswith(f".{suffix}") for suffix in LOCAL_SUFFIXES)
