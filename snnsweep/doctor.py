"""What is installed, what does not fit together, and the command that mends it."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from snnsweep import registry
from snnsweep.errors import SnnSweepError

# torch 2.x goes with torchvision 0.(x+15) and torchaudio 2.x.
WORKING_SET = "torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0"
IMPORTS = ("torchvision", "spikingjelly.activation_based.model", "spikingjelly.datasets", "ray.tune", "mlflow")
LITTLE_DISK = 5e9


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `mend` is empty where it is fine."""

    what: str
    found: str
    mend: str = ""


def examine(storage: Path, data_dir: Path) -> Iterator[Finding]:
    """Every finding, the quick ones first."""
    yield from requirements()
    yield torch_family(_version("torch"), _version("torchvision"), _version("torchaudio"))
    yield from map(_import, IMPORTS)
    yield _disk(storage)
    yield _token()
    yield (accelerator := _accelerator())
    if accelerator.mend:
        return  # without torch no data set can be asked
    yield _neurons()
    for name in registry.datasets.names():
        yield _data(name, data_dir)


def requirements() -> Iterator[Finding]:
    """The declared dependencies against what is installed."""
    for line in requires("snnsweep") or []:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        have = _version(wanted.name)
        fits = have is not None and wanted.specifier.contains(have, prereleases=True)
        wanted.marker = None
        mend = "" if fits else f'pip install "{wanted}"'
        yield Finding(wanted.name, have or "not installed", mend)


def torch_family(torch: str | None, vision: str | None, audio: str | None) -> Finding:
    """Whether the three torch packages are of one release and one build (CPU, or one CUDA)."""
    given = {"torch": torch, "torchvision": vision, "torchaudio": audio}
    found = ", ".join(f"{name} {have or 'missing'}" for name, have in given.items())
    if not (torch and vision and audio):
        return Finding("torch family", found, f"pip install {WORKING_SET}")
    minor = [int(have.split(".")[1]) for have in (torch, vision, audio)]
    builds = {re.sub(r"^[^+]*\+?", "", have) for have in (torch, vision, audio)} - {""}
    fits = minor == [minor[0], minor[0] + 15, minor[0]] and len(builds) <= 1
    return Finding("torch family", found, "" if fits else f"pip install {WORKING_SET}")


def _import(module: str) -> Finding:
    """In a process of its own: a mismatched wheel can end the process that imports it."""
    tried = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return Finding(f"import {module}", "works")
    reason = (tried.stderr.strip() or f"exit code {tried.returncode}").splitlines()[-1]
    fix = f"pip install {WORKING_SET}" if "torch" in reason else f"pip install -U {module.partition('.')[0]}"
    return Finding(f"import {module}", reason, fix)


def _accelerator() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("accelerator", str(error), f"pip install {WORKING_SET}")
    if not torch.cuda.is_available():
        return Finding("accelerator", f"none: trials run on the CPU ({torch.get_num_threads()} threads)")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("accelerator", ", ".join(names))


def _neurons() -> Finding:
    from snnsweep.neurons import native

    return Finding("neurons on the CPU", native.about())


def _disk(storage: Path) -> Finding:
    there = next(path for path in (storage.resolve(), *storage.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    mend = "" if free > LITTLE_DISK else "free some space, or give another --storage"
    return Finding("disk for sweeps", f"{free / 1e9:.0f} GB free at {there}", mend)


def _token() -> Finding:
    """Ray writes the token of a local cluster with the umask's mode."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token.exists():
        return Finding("Ray's token", "none yet: the first local cluster writes one")
    open_to_others = bool(token.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return Finding("Ray's token", str(token), f"chmod 600 {token}" if open_to_others else "")


def _data(name: str, data_dir: Path) -> Finding:
    from snnsweep import data

    try:
        return Finding(f"data: {name}", data.present(name, data_dir))
    except SnnSweepError as error:
        return Finding(f"data: {name}", str(error))  # a set that nobody wants is no fault


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
