"""What the machine has: disk, memory, files, clock, compiler, GPU."""

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from snnsweep import terminal_gpu
from snnsweep.finding import WORKING_SET, Finding

LITTLE_DISK, LITTLE_SHM, FEW_FILES = 5e9, 1e9, 4096
SHM = Path("/dev/shm")


def examine(storage: Path) -> Iterator[Finding]:
    """Every finding."""
    yield disk(storage)
    yield shared_memory()
    yield open_files()
    yield home()
    yield clock()


def disk(storage: Path, little: float = LITTLE_DISK) -> Finding:
    """Free space where sweeps go."""
    try:
        there = next(path for path in (storage.resolve(), *storage.resolve().parents) if path.exists())
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("disk for sweeps", f"{storage} cannot be looked at: {error.strerror}", "give another --storage")
    mend = "" if free > little else "free some space, or give another --storage"
    return Finding("disk for sweeps", f"{free / 1e9:.0f} GB free at {there}", mend)


def shared_memory(little: float = LITTLE_SHM) -> Finding:
    """Where Ray's object store lies; a container has 64 MB by default, and Ray goes to the disk then."""
    if not SHM.is_dir():
        return Finding("shared memory", f"no {SHM} on this system")
    total = shutil.disk_usage(SHM).total
    mend = f"mount -o remount,size=4g {SHM}   # of a container: docker run --shm-size=4g"
    return Finding("shared memory", f"{total / 1e9:.1f} GB at {SHM}", "" if total > little else mend)


def open_files(few: int = FEW_FILES) -> Finding:
    """Ray raises the soft limit to the hard one by itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= few
    said = "no limit" if hard == resource.RLIM_INFINITY else f"{hard} at most"
    mend = "ulimit -Hn 65536   # as root; for good in /etc/security/limits.conf"
    return Finding("open files", said, "" if enough else mend)


def home() -> Finding:
    """Ray's token and the compiled neurons go there."""
    try:
        folder = Path.home()
        with tempfile.TemporaryFile(dir=folder):
            return Finding("home folder", f"{folder} can be written to")
    except (OSError, RuntimeError) as error:
        said = f"{os.environ.get('HOME', '?')}: {getattr(error, 'strerror', None) or error}"
        return Finding("home folder", said, "export HOME=<a folder that you may write to>")


def clock() -> Finding:
    """Where it is far off, certificates and tokens are refused; from here only a slow one shows."""
    late = Path(__file__).stat().st_mtime - time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if late < 60:
        return Finding("clock", said)
    return Finding("clock", f"{said}: before these files were installed", "sudo timedatectl set-ntp true")


def accelerator() -> Finding:
    """The GPU that trials run on, or why they do not."""
    try:
        import torch
    except ImportError as error:
        return Finding("accelerator", str(error), f"pip install {WORKING_SET}")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("accelerator", ", ".join(names))
    if not terminal_gpu.ask():
        return Finding("accelerator", f"none: trials run on the CPU ({torch.get_num_threads()} threads)")
    if torch.version.cuda is None:
        found = f"{terminal_gpu.TOOL} sees a GPU, but torch {torch.__version__} is built for the CPU"
        return Finding("accelerator", found, f"pip install --force-reinstall {WORKING_SET}")
    cuda = torch.version.cuda
    found = f"{terminal_gpu.TOOL} sees a GPU, but torch {torch.__version__} (CUDA {cuda}) cannot use it"
    return Finding("accelerator", found, f"install a driver for CUDA {cuda} or newer (nvidia-smi says yours)")


def neurons() -> Finding:
    """Whether the CPU's kernel is compiled."""
    from snnsweep.neurons import native

    found = native.about()
    lacks = "no C compiler" in found
    return Finding("neurons on the CPU", found, "apt-get install gcc   # or name a compiler in CC" if lacks else "")
