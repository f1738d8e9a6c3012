"""The crawler's side of the talk about politeness: it sends nothing to a host before its parent has said so.

What is said is told in :mod:`scraping.politeness.gatekeeper`.
"""

import asyncio
import base64
import itertools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from scraping.politeness.gatekeeper import host_of

Message = dict[str, Any]

ANSWER_SECONDS = 60.0
"""A parent that takes longer is not there any more, or hangs."""


class ParentSilent(Exception):
    """The parent does not answer. Without its word nothing may be fetched."""


class Gate:
    """Asks, and waits for the answers. Belongs to the event loop it was made in."""

    def __init__(
        self, send: Callable[[str, Message], None], *, obey_robots: bool, obey_opt_outs: bool
    ) -> None:
        """Talk through ``send``, which takes the name of an event and its fields."""
        self._send = send
        self._options = {"obey_robots": obey_robots, "obey_opt_outs": obey_opt_outs}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}

    async def ask(self, url: str, purpose: str) -> Message:
        """Return what the parent says to a request that is to begin now.

        Args:
            url: what is to be fetched.
            purpose: ``page``, ``image`` or ``policy``.

        Raises:
            ParentSilent: it says nothing.
        """
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send("slot", {"id": number, "url": url, "purpose": purpose} | self._options)
            return await asyncio.wait_for(future, ANSWER_SECONDS)
        except TimeoutError:
            raise ParentSilent from None
        except asyncio.CancelledError:
            self.unsent(number, url)  # should it have been let go meanwhile
            raise
        finally:
            del self._waiting[number]

    def answered(self, message: Message) -> None:
        """Take an answer. To be called in the event loop."""
        future = self._waiting.get(message.get("id", 0))
        if future is not None and not future.done():
            future.set_result(message)

    def unsent(self, number: int, url: str) -> None:
        """Tell that a request that was let go was not sent."""
        self._send("outcome", {"id": number, "host": host_of(url), "unsent": True})

    def outcome(
        self, number: int, url: str, *, status: int | None, retry_after: str = "", latency: float = 0.0
    ) -> None:
        """Tell how a request ended. ``latency`` are seconds to the headers; without a status there was no answer."""
        fields = {"id": number, "host": host_of(url), "status": status, "latency": round(latency, 3)}
        self._send("outcome", fields | ({"retry_after": retry_after} if retry_after else {}))

    def policy(self, origin: str, path: str, *, status: int | None, body: bytes) -> None:
        """Report a file of a site."""
        packed = base64.b64encode(zlib.compress(body)).decode()
        self._send("policy", {"origin": origin, "path": path, "status": status, "body": packed})


def local_gate(gatekeeper: Any, **options: bool) -> Gate:
    """Return a gate whose gatekeeper lives in this process: for a crawl that is started by hand."""

    def send(event: str, fields: Mapping[str, Any]) -> None:
        answer = gatekeeper.answer({"event": event, **fields})
        if answer is not None:
            gate.answered(answer)

    gate = Gate(send, **options)
    return gate
