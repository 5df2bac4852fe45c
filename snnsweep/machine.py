"""What a trial runs on."""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")


def hardware(device: torch.device | str) -> str:
    """A name such as "NVIDIA H200", or the CPU's: times on different ones cannot be compared."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def keep_freed_memory() -> None:
    """From now on the C library keeps what a training step frees, for the next one, instead of giving it back.

    Fresh pages cost a training step on the CPU time (docs/performance.md); results do not change. The process
    keeps its peak until it ends. It has an effect with glibc alone, and none where the user has set a `MALLOC_...`
    variable.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing below 2 GB free at the end of the heap goes back
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the most that it takes; only larger blocks come fresh each time
