"""What every bench is told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """``scratch`` outlives one bench, so that what is slow to build is built once."""

    quick: bool
    scratch: Path

    def pick(self, full: int, quick: int) -> int:
        """Return a number of rounds or pictures."""
        return quick if self.quick else full


def say(text: str) -> None:
    """Tell whoever waits how it comes along."""
    print(f"   {text}", flush=True)
