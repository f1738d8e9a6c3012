"""Who sent a request: the address that rate limits count by and the audit trail keeps."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest

UNKNOWN = "unknown"
"""For a request through a Unix socket whose proxy says nothing. All of these count as one client."""


def client_address(request: HttpRequest) -> str:
    """Return the address of the client, as the outermost trusted proxy saw it.

    Each proxy appends the address it was called from to ``X-Forwarded-For``. Counted from the right, as many entries
    as there are proxies of ours (``IMAGEHUB_TRUSTED_PROXIES``) are true; all that stands to the left of them was sent
    by the client, who may write there what it likes. Without proxies of ours the header is not looked at.
    """
    peer = request.META.get("REMOTE_ADDR", "")
    hops = [peer]
    if settings.TRUSTED_PROXIES:
        hops = [*request.META.get("HTTP_X_FORWARDED_FOR", "").split(","), peer]
    return _normalised(hops[max(0, len(hops) - 1 - settings.TRUSTED_PROXIES)]) or _normalised(peer) or UNKNOWN


def _normalised(text: str) -> str:
    """Return an address in its shortest form, or an empty string; some proxies add the port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
