"""Which device works, and in which number format."""

from dataclasses import dataclass

import torch

from generation.engine.failures import FailureCode, RequestFailed

DEVICES = ("cuda", "mps", "cpu")


@dataclass(frozen=True)
class Hardware:
    device: torch.device
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def default_capacity(self) -> int:
        """How many models to keep: a GPU rarely holds two, main memory usually does."""
        return 2 if self.device.type == "cpu" else 1


def choose_hardware(device: str = "auto", dtype: str = "auto") -> Hardware:
    """Return the device and dtype to work with; ``auto`` takes the best there is.

    Raises:
        RequestFailed: this machine does not have that device (``bad_request``).
    """
    chosen = next(name for name in DEVICES if _has(name)) if device == "auto" else device
    if not _has(chosen):
        raise RequestFailed(FailureCode.BAD_REQUEST, f"This machine has no {chosen} device.")
    # Half precision is slower than single on a CPU, and convolutions lack it on some.
    best = torch.float32 if chosen == "cpu" else torch.float16
    return Hardware(torch.device(chosen), best if dtype == "auto" else getattr(torch, dtype))


def set_threads(threads: int) -> None:
    """Limit the processor threads of one operation; call it before the first."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def free_cached_memory(hardware: Hardware) -> None:
    """Give memory that the allocator keeps for later back to the device."""
    if hardware.device.type == "cuda":
        torch.cuda.empty_cache()
    elif hardware.device.type == "mps":
        torch.mps.empty_cache()


def _has(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_available()
    if device == "mps":
        return torch.backends.mps.is_available()
    return device == "cpu"
