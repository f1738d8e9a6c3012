"""Which device works, and in which number format."""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from training.pipelines.failures import FailureCode, RequestFailed

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

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


def memory_bytes(hardware: Hardware) -> int:
    """Return how much memory the device has: that of the GPU, or of the machine as far as this process may use it."""
    if hardware.device.type == "cuda":
        return torch.cuda.get_device_properties(hardware.device).total_memory
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number: there is no limit
            total = min(total, int(Path(limit).read_text()))
    return total


def used_bytes(hardware: Hardware) -> int:
    """Return how much memory this process takes on the device; on a CPU, its resident size."""
    if hardware.device.type == "cuda":
        return torch.cuda.memory_allocated(hardware.device)
    if hardware.device.type == "mps":
        return torch.mps.current_allocated_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


def _has(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_available()
    if device == "mps":
        return torch.backends.mps.is_available()
    return device == "cpu"
