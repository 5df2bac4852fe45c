"""What the sweep's run in MLflow shows of its course, over the trials that ended."""

import numpy as np
from numpy.typing import NDArray

from snnsweep.results.ranking import hypervolume, is_share, reference_point
from snnsweep.sweep.progress import Progress


def course(progress: Progress, members: NDArray[np.float64]) -> dict[str, float]:
    """`front_size`, `best/<objective>`, `trials/<status>` and `hypervolume`.

    The hypervolume is from the worst that each objective can be. Where one has no such bound the reference would move
    with the trials, and no two of its values could be compared: then there is none.

    Args:
        members: of the front, [n, m] in the objectives' order.
    """
    ways = progress.objectives
    found: dict[str, float] = {"front_size": len(members)}
    found |= {f"trials/{status}": count for status, count in progress.ended.items()}
    found |= {f"best/{name}": value for name, (value, _) in progress.best.items()}
    if all(map(is_share, ways)):
        corner = np.array(list(reference_point(ways, []).values()))
        found["hypervolume"] = hypervolume(members.reshape(-1, len(ways)), corner, list(ways.values()))
    return found
