"""Figures that compare two judgements of the same trials: hypervolume, Kendall's tau, a mean over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, t

from snnsweep.result import Direction, direction


def hypervolume(
    points: NDArray[np.floating], reference: NDArray[np.floating], directions: Sequence[Direction]
) -> float:
    """The volume that the points dominate, bounded by the reference point (Zitzler & Thiele, 1998), exactly.

    Args:
        points: [n, m], n >= 0 in m >= 1 objectives; those not better than the reference in every one add nothing.
        reference: [m].
        directions: m of them.

    Returns:
        At least 0. By slicing along the last objective: time O(n^(m - 1) log n), for fronts of hundreds of points.

    Raises:
        ValueError: the shapes do not fit, or a number is not finite.
    """
    corner, found = np.asarray(reference, dtype=float), np.asarray(points, dtype=float)
    if corner.shape != (len(directions),) or not directions or found.ndim != 2 or found.shape[1] != len(directions):
        raise ValueError(f"{len(directions)} objectives need points [n, m] and m references; {found.shape}")
    if not (np.isfinite(corner).all() and np.isfinite(found).all()):
        raise ValueError("a hypervolume needs finite points and a finite reference")
    gains = (found - corner) * np.array([1.0 if way == "maximize" else -1.0 for way in directions])
    return _volume(gains[(gains > 0).all(axis=1)])


def _volume(gains: NDArray[np.float64]) -> float:
    """Of the union of the boxes between 0 and each row of `gains` [n, m]."""
    if not len(gains):
        return 0.0
    if gains.shape[1] == 1:
        return float(gains.max())
    if gains.shape[1] == 2:  # a staircase from the right
        across, up = gains[np.argsort(-gains[:, 0])].T
        return float(-np.diff(across, append=0.0) @ np.maximum.accumulate(up))
    heights = np.unique(gains[:, -1])
    slabs = np.diff(heights, prepend=0.0)
    return sum(
        float(slab) * _volume(gains[gains[:, -1] >= height][:, :-1])
        for height, slab in zip(heights, slabs, strict=True)
    )


def is_share(name: str) -> bool:
    """Whether a metric lies in [0, 1]: whatever is maximised by nature does, and every `..._share`."""
    return direction(name) == "maximize" or name.endswith("_share")


def reference_point(objectives: Mapping[str, Direction], points: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The reference of a sweep: a share's worst possible value, else a tenth of the range beyond the worst of `points`.

    Args:
        points: all finished trials of the sweep, each with a number for every objective: the reference then does not
            depend on which of them are compared.

    Raises:
        ValueError: an objective that is no share, and no point at all.
    """
    found = {}
    for name, way in objectives.items():
        if is_share(name):
            found[name] = 0.0 if way == "maximize" else 1.0
            continue
        values = [float(point[name]) for point in points]
        low, high = min(values), max(values)
        margin = 0.1 * (high - low or abs(high) or 1.0)
        found[name] = low - margin if way == "maximize" else high + margin
    return found


def kendall_tau(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Kendall's tau-b between two rankings of the same n trials, in [-1, 1]; ties are counted as such.

    Returns:
        None where it says nothing: for n < 2, or where one of the two ties all trials.
    """
    tau = float(kendalltau(before, after).statistic) if len(before) > 1 else np.nan
    return None if np.isnan(tau) else tau


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % Student t interval of a mean, from n >= 2 independent values.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a t interval needs two values at least; given {len(values)}")
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    mean = float(np.mean(values))
    return mean - half, mean + half
