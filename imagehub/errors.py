"""Failures that users meet. Apps subclass these beside the services that raise them."""

from collections.abc import Sequence
from dataclasses import dataclass


class ImageHubError(Exception):
    """An anticipated failure: its text is written for the person who caused it."""

    code = "invalid"
    title = "The request cannot be carried out"


class Invalid(ImageHubError):
    """A value that is wrong by itself. ``pointer`` is the JSON pointer of the field."""

    def __init__(self, detail: str, *, pointer: str, code: str = "invalid") -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.code = code

    @property
    def faults(self) -> "tuple[Fault, ...]":
        """All that is wrong, in the order in which it stands."""
        return (Fault(self.pointer, str(self), self.code),)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, as a JSON pointer, and what."""

    pointer: str
    detail: str
    code: str = "invalid"


class InvalidFields(Invalid):
    """Several values that are wrong by themselves, told at once. One alone reads like any other."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        is_one = len(faults) == 1
        super().__init__(
            first.detail if is_one else "Some fields are not valid.",
            pointer=first.pointer,
            code=first.code if is_one else "invalid",
        )
        self._faults = tuple(faults)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self._faults


class Conflict(ImageHubError):
    """The state of a row forbids it, or somebody else was faster."""

    code = "conflict"
    title = "The state of the resource does not allow this"


class TooMany(ImageHubError):
    """Well-formed and possible, but not so soon, or not so many at once.

    ``limit`` is how many there may be, ``retry_after`` the seconds to wait (at least 1).
    """

    code = "too_many"
    title = "Too many"

    def __init__(self, detail: str, *, limit: int, retry_after: int) -> None:
        super().__init__(detail)
        self.limit = limit
        self.retry_after = retry_after


class NotReady(ImageHubError):
    """Well-formed, but not possible now."""

    code = "not_ready"
    title = "This is not possible now"


class NotNow(NotReady):
    """It is not possible at this moment, for a reason that goes away by itself: whoever tries again may find it done."""


class StillBusy(NotNow):
    """Only one may do it at a time, and somebody else has been at it for all the time that we could wait."""

    code = "still_busy"
    title = "Somebody else is at it for too long"
