"""What a trial runs on."""

import platform
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
