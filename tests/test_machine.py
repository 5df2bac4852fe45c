from pathlib import Path

import pytest
import torch

from snnsweep import machine
from snnsweep.machine import hardware


def test_hardware_of_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: Other\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert hardware("cpu") == "Some CPU @ 2 GHz"
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "none")
    assert hardware("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert hardware("cuda") == "GPU of cuda"
