"""The text of an address: what is refused before anything is looked up."""

import re
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import quote, urljoin

from imagehub.egress.hosts import read_host
from imagehub.egress.policy import BlockedAddress, Policy

MAX_URL_LENGTH = 4096
DEFAULT_PORTS = {"http": 80, "https": 443}

# RFC 3986, appendix B, for addresses that say everything: browsers would forgive `http:/host` and `//host`, each differently.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]+)(?P<rest>[^#]*)(?:#.*)?")
_AUTHORITY = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?"
)
_WEB_SCHEME = re.compile(r"https?:", re.IGNORECASE)
# What some resolve against the page that redirects, and others take for another host.
_HALF_RELATIVE = re.compile(r"///|[A-Za-z][A-Za-z0-9+.-]*:(?!//)")
# Controls, and all that Unicode calls white space or a line's end; C1 and the byte-order mark are read away by some parsers.
_INVISIBLE = re.compile(
    r"[\x00-\x20\x7f-\xa0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"
)
_SAFE = "%/?:@!$&'()*+,;=-._~[]"
"""What stays as it is: RFC 3986's reserved and unreserved characters, and what is escaped already."""


def vet_url(url: str, policy: Policy, *, pointer: str = "/url") -> str:
    """Return this address in its one spelling, ASCII and without a fragment; read it with that spelling from here on.

    Raises:
        BlockedAddress: it is not to be fetched. That it passes does not mean that it can be: what its name resolves to
            is looked at when a connection is made.
    """
    try:
        return _vetted(url, policy)
    except BlockedAddress as error:
        raise BlockedAddress(str(error), pointer=pointer) from None


def vet_redirect(location: str, *, source: str, policy: Policy) -> str:
    """Return where a redirect from ``source``, an address that was vetted, leads.

    Raises:
        BlockedAddress: not there.
    """
    _refuse_ambiguous(location)
    if _HALF_RELATIVE.match(location):
        _refuse("The page redirects to something that is no address.")
    try:
        target = vet_url(urljoin(source, location), policy)
    except ValueError:
        _refuse("The page redirects to something that is no address.")
    refuse_downgrade([source], target)
    return target


def refuse_downgrade(sources: Iterable[str], target: str) -> None:
    """Refuse to be led from an encrypted connection to a plain one.

    Raises:
        BlockedAddress: it does.
    """
    if target.startswith("http://") and any(source.lower().startswith("https://") for source in sources):
        _refuse("The page redirects from https:// to http://.")


def _vetted(url: str, policy: Policy) -> str:
    _refuse_ambiguous(url)
    parts = _URL.fullmatch(url)
    if parts is None and _WEB_SCHEME.match(url):
        _refuse("An address is written like https://example.com/page.")
    if parts is None or (scheme := parts["scheme"].lower()) not in DEFAULT_PORTS:
        _refuse("Only addresses that begin with http:// or https:// are fetched.")
    if "@" in parts["authority"]:
        _refuse("An address with a user name or a password in it is not fetched.")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        _refuse("The address has no host and port that can be read.")
    try:
        host = read_host(authority["ipv6"] or authority["name"])
        rest = quote(parts["rest"], safe=_SAFE)
    except ValueError:
        _refuse("The address has no host that can be read: numbers are written like 93.184.216.34.")
    port = int(authority["port"] or DEFAULT_PORTS[scheme])
    policy.check_host(host, port)
    written = host if isinstance(host, str) or host.version == 4 else f"[{host}]"
    suffix = "" if port == DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{written}{suffix}{rest if rest.startswith('/') else f'/{rest}'}"


def _refuse_ambiguous(text: str) -> None:
    """Refuse what one program reads as one address and another as another."""
    if len(text) > MAX_URL_LENGTH:
        _refuse(f"An address has at most {MAX_URL_LENGTH} characters.")
    if _INVISIBLE.search(text):
        _refuse("The address has a space or an invisible character in it: write those as %XX.")
    if "\\" in text:
        _refuse("The address has a backslash in it.")


def _refuse(detail: str) -> NoReturn:
    raise BlockedAddress(detail)
