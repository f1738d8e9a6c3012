"""Every route there is, read from the URL configuration."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RegexPattern

_CONVERTED = re.compile(r"<(?:\w+:)?(\w+)>")
_GROUP = re.compile(r"\(\?P<(\w+)>[^)]*\)")


@dataclass(frozen=True)
class Route:
    """A path such as ``api/images/<pk>``, and the view that answers there."""

    path: str
    callback: Any

    @property
    def parameters(self) -> list[str]:
        return _CONVERTED.findall(self.path)

    def url(self, **values: Any) -> str:
        return "/" + _CONVERTED.sub(lambda match: str(values[match[1]]), self.path)


def walk(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[Route]:
    """Yield all routes, in the order in which they are tried."""
    for pattern in (resolver or get_resolver()).url_patterns:
        path = prefix + _plain(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield Route(path, pattern.callback)
        else:
            yield from walk(pattern, path)


def _plain(pattern: Any) -> str:
    text = str(pattern)
    if isinstance(pattern, RegexPattern):
        return _GROUP.sub(r"<\1>", text.removeprefix("^").removesuffix("$"))
    return _CONVERTED.sub(r"<\1>", text)
