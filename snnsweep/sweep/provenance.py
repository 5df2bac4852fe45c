"""Where a sweep's numbers come from: what `sweep.json` says."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from snnsweep.sweep.space import Space
from snnsweep.tracking.address import redacted

PACKAGES = ("snnsweep", "torch", "torchvision", "spikingjelly", "ray", "optuna", "mlflow", "numpy")


def provenance(space: Space, **facts: Any) -> dict[str, Any]:
    """Versions, machine, git commit, and the space's own text and hash, with the sweep's settings in `facts`."""
    return {
        **facts,
        "objectives": space.objectives,
        "question": space.question,
        "space": {"source": str(Path(space.source).resolve()), "sha256": space.sha256, "text": space.text},
        "started": now(),
        "command": [Path(sys.argv[0]).name, *map(redacted, sys.argv[1:])],
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "git_commit": _commit(Path(space.source).resolve().parent),
    }


def tags(facts: dict[str, Any]) -> dict[str, str]:
    """What an MLflow search may ask of a sweep."""
    return {
        "snnsweep.space_sha256": facts["space"]["sha256"],
        "snnsweep.git_commit": facts["git_commit"] or "",
        "snnsweep.smoke": str(facts["smoke"]).lower(),
        "snnsweep.version": facts["versions"]["snnsweep"] or "",
    }


def params(facts: dict[str, Any]) -> dict[str, Any]:
    """What the sweep's MLflow run shows as its parameters."""
    shown = ("trials", "seed", "sampler", "data_dir", "trials_side_by_side", "cpus_per_trial", "gpus_per_trial")
    return {key: facts[key] for key in shown} | {"objectives": ", ".join(facts["objectives"])}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that decide what a sweep does."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of the repository that the space lies in, with `+changes` where files differ from it."""
    describe = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        described = subprocess.run(describe, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return None
    return described.stdout.strip() or None
