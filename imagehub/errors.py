"""Failures that users meet. Apps subclass these beside the services that raise them."""


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
