"""What lies in a sweep's folder, and what `sweep.json` says."""

import json
from pathlib import Path
from typing import Any

from snnsweep.errors import UserError, nearest
from snnsweep.results.files import line

RESULTS, FRONT, MIXES, SWEEP = "results.parquet", "front.parquet", "mixes.parquet", "sweep.json"
CONFIRM = "confirm"  # the folder of what was judged again


def journal_of(path: Path) -> Path:
    """The journal beside a parquet file."""
    return path.with_suffix(".jsonl")


def has_rows(folder: Path | str, file: str = RESULTS) -> bool:
    """Whether some trial has ended in that folder."""
    path = Path(folder) / file
    return any(each.is_file() and each.stat().st_size for each in (path, journal_of(path)))


def is_sweep(folder: Path) -> bool:
    """Whether that folder is a sweep's, or a confirmation's."""
    return (folder / SWEEP).is_file() or has_rows(folder)


def load_sweep(folder: Path | str) -> dict[str, Any]:
    """What `sweep.json` says.

    Raises:
        UserError: there is no sweep in that folder, or its `sweep.json` is not a JSON object.
    """
    path = Path(folder) / SWEEP
    if not path.exists():
        raise UserError(no_sweep(Path(folder), SWEEP))
    try:
        sweep = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({line(error)}); restore it, or start a new sweep") from None
    if not isinstance(sweep, dict):
        raise UserError(f"{path} has to hold a JSON object; it holds a {type(sweep).__name__}")
    if missing := sorted(
        {"mlflow_experiment_id", "name", "objectives", "smoke", "status", "tracking_uri"} - set(sweep)
    ):
        raise UserError(f"{path} is not what a sweep writes: it has no {', '.join(missing)}; restore it")
    return sweep


def no_sweep(folder: Path, looked_for: str) -> str:
    """The text of an error: what is not there, and which sweeps are near."""
    for place in (folder, folder.parent):
        found = sorted(child.name for child in place.iterdir() if is_sweep(child)) if place.is_dir() else []
        if found:
            listed = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "")
            hint = nearest(folder.name, found)
            hint = f"; {hint}" if hint.startswith("did") else ""
            return f"no sweep in {folder} (no {looked_for}); sweeps in {place}: {listed}{hint}"
    return f"no sweep in {folder} (no {looked_for}), and none beside it; give the folder of a sweep"
