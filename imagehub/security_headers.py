"""What every answer says to browsers: what a page may load, who may frame it, who may keep a copy of it.

The same in development as in production, so that what a page may not do is found where it is written. Only what needs
TLS differs, and stands in the settings.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from csp.constants import NONE, SELF
from django.utils.cache import patch_vary_headers
from django.utils.deprecation import MiddlewareMixin

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}
"""Of pages. All scripts and styles come from our own files; nothing is written into a page."""


def content_security_policy(*, image_origins: Iterable[str] = ()) -> dict[str, Any]:
    """Return the policy of pages on which pictures may also come from these origins."""
    directives = CONTENT_SECURITY_POLICY["DIRECTIVES"]
    return {"DIRECTIVES": directives | {"img-src": [*directives["img-src"], *image_origins]}}


def bucket_origins(options: Mapping[str, Any]) -> list[str]:
    """Return the origins to which addresses of files in a bucket may lead."""
    if endpoint := options["public_endpoint"] or options["endpoint_url"]:
        parts = urlsplit(endpoint)
        return [f"{parts.scheme}://{parts.netloc}"]
    bucket, region = options["bucket_name"], options["region_name"]
    return [f"https://{bucket}.s3.amazonaws.com", f"https://{bucket}.s3.{region}.amazonaws.com"]


DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
"""Of everything that is no page: JSON, and files that people uploaded. Opened in a browser it can do nothing."""

PERMISSIONS_POLICY: dict[str, list[str]] = {
    feature: []
    for feature in (
        "accelerometer",
        "ambient-light-sensor",
        "autoplay",
        "bluetooth",
        "browsing-topics",
        "camera",
        "display-capture",
        "encrypted-media",
        "fullscreen",
        "gamepad",
        "geolocation",
        "gyroscope",
        "hid",
        "identity-credentials-get",
        "idle-detection",
        "local-fonts",
        "magnetometer",
        "microphone",
        "midi",
        "otp-credentials",
        "payment",
        "picture-in-picture",
        "publickey-credentials-create",
        "publickey-credentials-get",
        "screen-wake-lock",
        "serial",
        "storage-access",
        "sync-xhr",
        "usb",
        "web-share",
        "window-management",
        "xr-spatial-tracking",
    )
}
"""No page of ours needs any of them."""

PRIVATE = "private, no-store"
VARY = ("Cookie", "Authorization")
"""Whatever is not marked as public depends on who asks."""

OUTSIDE_DJANGO = {
    "Cache-Control": PRIVATE,
    "Content-Security-Policy": DATA_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""For answers that the web server makes before Django has seen the request."""

CORS_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
CORS_REQUEST_HEADERS = [
    "accept",
    "authorization",
    "cache-control",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "range",
    "x-csrftoken",
    "x-request-id",
]
CORS_RESPONSE_HEADERS = [
    "X-Request-ID",
    "Location",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "ETag",
    "Accept-Ranges",
    "Content-Range",
    "Content-Disposition",
]

PLAIN_HTTP_PATHS = [r"^api/health/(live|ready)$"]
"""Load balancers ask here without TLS."""


class ResponseHeadersMiddleware(MiddlewareMixin):
    """Lock down what is no page, and let nobody keep or share what depends on who asks.

    Stands inside ``CSPMiddleware``, which leaves a policy alone that is there already. A view that says otherwise about
    its own answer is left alone as well.
    """

    def process_response(self, request: "HttpRequest", response: "HttpResponseBase") -> "HttpResponseBase":
        """Add the headers that are not there yet."""
        if response.headers.get("Content-Type", "").partition(";")[0] != "text/html":
            response.headers.setdefault("Content-Security-Policy", DATA_POLICY)
        response.headers.setdefault("Cache-Control", PRIVATE)
        if "public" not in response.headers["Cache-Control"]:
            patch_vary_headers(response, VARY)
        return response
