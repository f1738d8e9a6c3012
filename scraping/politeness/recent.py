"""What was used lately, within bounds: strangers decide how many sites there are, and how much each of them has to say."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets what was not asked for longest. Not safe to use from several threads."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        """Remember so many things at most, and no more than so many bytes together."""
        self._most = most
        self._most_bytes = most_bytes
        self._known: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> V | None:
        """Return what is remembered, or None."""
        if key not in self._known:
            return None
        self._known.move_to_end(key)
        return self._known[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Remember something of so many bytes, instead of what was there before."""
        if key in self._known:
            self._bytes -= self._known.pop(key)[1]
        self._known[key] = value, size
        self._bytes += size
        while len(self._known) > self._most or self._bytes > self._most_bytes:
            _, (_, freed) = self._known.popitem(last=False)
            self._bytes -= freed
