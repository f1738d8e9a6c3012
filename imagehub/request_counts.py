"""How many requests were answered, how, and how fast. No route, no user: there are as many counters as stand here, and no more."""

from dataclasses import dataclass

from imagehub import counters

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: the default buckets of Prometheus' own clients."""

SUM = "http:microseconds"
"""Counters are whole numbers."""


@dataclass(frozen=True)
class RequestCounts:
    """All requests since the counters began."""

    by_class: dict[str, int]
    """By the first digit of the status, such as ``2xx``."""
    buckets: list[tuple[str, int]]
    """How many took so many seconds at most, and ``+Inf``: all of them."""
    seconds: float


def count(status: int, seconds: float) -> None:
    """Count one answer.

    Args:
        status: its status.
        seconds: until it was there, which of a stream is its beginning.
    """
    bucket = next((f"{bound:g}" for bound in BUCKETS if seconds <= bound), "+Inf")
    counters.add({f"http:{status // 100}xx": 1, f"http:le:{bucket}": 1, SUM: round(seconds * 1_000_000)})


def read() -> RequestCounts:
    """Return what all processes have counted."""
    bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
    found = counters.totals(
        [*(f"http:{name}" for name in CLASSES), *(f"http:le:{bound}" for bound in bounds), SUM]
    )
    buckets, so_far = [], 0
    for bound in bounds:
        so_far += found[f"http:le:{bound}"]
        buckets.append((bound, so_far))
    return RequestCounts({name: found[f"http:{name}"] for name in CLASSES}, buckets, found[SUM] / 1_000_000)
