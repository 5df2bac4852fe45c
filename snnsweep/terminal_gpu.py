"""How busy this machine's GPUs are, as their own tool says; nothing where there is none or it does not answer."""

import shutil
import subprocess
from threading import Event, Thread

TOOL, EVERY_S = "nvidia-smi", 5
ASKED = ["--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"]


class GpuUse:
    """Asks every few seconds, in a thread, where the tool is installed."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._over = Event()
        if shutil.which(TOOL):
            Thread(target=self._watch, daemon=True).start()

    def lines(self) -> list[str]:
        """One for each GPU: `GPU 0 of this machine: 97 %, 12.3 of 79.6 GiB`."""
        return self._lines

    def stop(self) -> None:
        """Asks no more."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._lines = ask()
            self._over.wait(EVERY_S)


def ask() -> list[str]:
    """What the tool says now; a figure that it does not know is left out."""
    try:
        told = subprocess.run([TOOL, *ASKED], capture_output=True, text=True, check=True, timeout=EVERY_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for row in told.stdout.splitlines() if (line := _line(row))]


def _line(row: str) -> str:
    """Of `0, 97, 12596, 81559`; memory in MiB. Empty where nothing is known, as of a part of a GPU (MIG)."""
    try:
        index, busy, used, total = (part.strip() for part in row.split(","))
    except ValueError:
        return ""
    said = [f"{busy} %"] if busy.isdecimal() else []
    if used.isdecimal() and total.isdecimal():
        said.append(f"{int(used) / 1024:.1f} of {int(total) / 1024:.1f} GiB")
    return f"GPU {index} of this machine: {', '.join(said)}" if said else ""
