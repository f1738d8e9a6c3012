import math
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer as RestFrameworkJSONRenderer

NEVER_INFINITE = frozenset({str, int, bool, type(None)})


class JSONRenderer(RestFrameworkJSONRenderer):
    """DRF's, but for what orjson can write by itself, which takes a fraction of the time."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the data as JSON in UTF-8; the same values as DRF would write.

        Raises:
            ValueError: a number is not finite. JSON has no word for it, and ``null`` would say that there is no value.
        """
        indented = self.get_indent(accepted_media_type or "", dict(renderer_context or {}))
        if data is not None and not indented:
            try:
                written = orjson.dumps(data, default=self._encode, option=orjson.OPT_PASSTHROUGH_DATETIME)
            except TypeError:  # such as whole numbers beyond 64 bits, which are for DRF to write or to refuse
                pass
            else:
                if b"null" not in written or _is_finite(data):
                    return written
        return super().render(data, accepted_media_type, dict(renderer_context or {}))

    def _encode(self, value: Any) -> Any:
        """Return what orjson can write for a value that it does not know.

        Raises:
            TypeError: DRF has to write it all: it can be read only once, and what comes after it may be for DRF as well, or
                it holds a number that orjson would write as ``null``.
        """
        if isinstance(value, Iterator):
            raise TypeError("This can be read only once.")
        encoded = self.encoder_class().default(value)
        if not _is_finite(encoded):
            raise TypeError("JSON has no word for a number that is not finite.")
        return encoded


def _is_finite(data: Any) -> bool:
    """Tell whether all numbers of nested data can be written. Without recursion, for it is asked of most answers."""
    found = [data]
    for item in found:  # which grows meanwhile
        kind = type(item)
        if kind in NEVER_INFINITE:
            continue
        if kind is float:
            if not math.isfinite(item):
                return False
        elif isinstance(item, dict):
            found.extend(item.values())
        elif isinstance(item, list | tuple):
            found.extend(item)
    return True
