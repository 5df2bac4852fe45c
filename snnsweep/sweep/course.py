"""What the sweep's run in MLflow shows of its course, over the trials that ended."""

from typing import get_args

from snnsweep.result import Status
from snnsweep.results.ranking import is_share
from snnsweep.sweep.progress import Progress


def course(progress: Progress) -> dict[str, float]:
    """`front_size`, `best/<objective>`, `trials/<status>` and `hypervolume`.

    The hypervolume is from the worst that each objective can be. Where one has no such bound the reference would move
    with the trials, and no two of its values could be compared: then there is none.
    """
    found: dict[str, float] = {"front_size": progress.front_size}
    found |= {f"trials/{status}": progress.ended.get(status, 0) for status in get_args(Status)}
    found |= {f"best/{name}": value for name, (value, _) in progress.best.items()}
    if all(map(is_share, progress.objectives)):
        volume = progress.hypervolume
        found["hypervolume"] = volume.value if volume else 0.0
    return found
