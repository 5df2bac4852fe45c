"""What is installed, what does not fit together, and the command that mends it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from snnsweep import doctor_machine, doctor_servers, registry
from snnsweep.errors import SnnSweepError
from snnsweep.finding import WORKING_SET, Finding

RAY = "ray[tune]==2.60.0"  # sweeps were run with it, and reach into parts of it that are not public
SWEEPS = "snnsweep.sweep.launch"
IMPORTS = ("torchvision", "spikingjelly.activation_based.model", "spikingjelly.datasets", "ray.tune", "mlflow", SWEEPS)


def examine(storage: Path, data_dir: Path) -> Iterator[Finding]:
    """Every finding, the quick ones first."""
    yield from requirements()
    yield torch_family(_version("torch"), _version("torchvision"), _version("torchaudio"))
    with ThreadPoolExecutor(max_workers=2) as two:  # each needs a core and half a gigabyte
        yield from two.map(_import, IMPORTS)
    yield from doctor_machine.examine(storage)
    yield from doctor_servers.examine()
    yield doctor_machine.accelerator()
    if "torch" not in sys.modules:
        return  # it cannot be imported, and without it no data set can be asked
    yield doctor_machine.neurons()
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
    fix = f'pip install "{RAY}"' if module == SWEEPS else f"pip install -U {module.partition('.')[0]}"
    fix = f"pip install {WORKING_SET}" if "torch" in reason else fix
    return Finding(f"import {module}", reason, fix)


def _data(name: str, data_dir: Path) -> Finding:
    from snnsweep import data

    try:
        return Finding(f"data: {name}", data.present(name, data_dir))
    except SnnSweepError as error:
        return Finding(f"data: {name}", str(error), absent=True)  # a set that nobody wants is no fault


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
