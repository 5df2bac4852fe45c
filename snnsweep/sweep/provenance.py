"""Where a sweep's numbers come from: what `sweep.json` says."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from snnsweep.sweep.space import Space

PACKAGES = ("snnsweep", "torch", "torchvision", "spikingjelly", "ray", "optuna", "mlflow", "numpy")


def provenance(space: Space, **facts: Any) -> dict[str, Any]:
    """Versions, machine, git commit, and the space's own text and hash, with the sweep's settings in `facts`."""
    return {
        **facts,
        "objectives": space.objectives,
        "question": space.question,
        "space": {"source": space.source, "sha256": space.sha256, "text": space.text},
        "started": now(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "git_commit": _commit(Path(space.source).resolve().parent),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of the repository that the space lies in, with `+changes` where files differ from it."""
    described = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip() or None
