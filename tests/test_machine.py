import os
import platform
import resource
from pathlib import Path

import pytest
import torch

from snnsweep import machine
from snnsweep.machine import hardware, keep_freed_memory


def test_hardware_of_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: Other\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert hardware("cpu") == "Some CPU @ 2 GHz"
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "none")
    assert hardware("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert hardware("cuda") == "GPU of cuda"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has the setting")
def test_freed_memory_is_kept_for_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        some = [torch.ones(6_000_000) for _ in range(4)]
        del some
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(3)) < 1000  # of 4 * 5859 pages
