"""The front: the trials that no other trial beats in every objective."""

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from snnsweep.result import Direction


def non_dominated(values: NDArray[np.floating], directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Which points no other point dominates, exactly.

    A point dominates another when it is at least as good in every objective and better in one; equal points
    do not dominate each other and stay or go together.

    Args:
        values: [n, m], n points in m >= 1 objectives; infinities are allowed.
        directions: m of them.

    Returns:
        A mask [n]. Time is O(n log n + n f m) for a front of f distinct points, memory O(n m).

    Raises:
        ValueError: `values` is not [n, m] for m directions, or holds a NaN.
    """
    costs = _costs(values, directions)
    if np.isnan(costs).any():
        rows = np.flatnonzero(np.isnan(costs).any(axis=1))
        raise ValueError(f"a point on a front needs a number in every objective; NaN in row {rows[0]}")
    points, place = np.unique(costs, axis=0, return_inverse=True)
    kept = np.zeros(len(points), dtype=bool)
    # Whoever dominates a point comes before it in lexicographic order, so that the first of the rest is always kept.
    rest, left = points.T, np.arange(len(points))
    while left.size:
        kept[left[0]] = True
        escapes = (rest < rest[:, :1]).any(axis=0)
        rest, left = rest[:, escapes], left[escapes]
    return kept[place.reshape(-1)]


def dominates(one: Mapping[Any, Any], other: Mapping[Any, Any], objectives: Mapping[str, Direction]) -> bool:
    """Whether `one` is at least as good as `other` in every objective, and better in one."""
    pair = np.array([[float(row[name]) for name in objectives] for row in (one, other)])
    return list(non_dominated(pair, list(objectives.values()))) == [True, False]


def front(results: pd.DataFrame, objectives: Mapping[str, Direction]) -> pd.DataFrame:
    """The finished trials that no other finished trial dominates.

    Trials with another status, or without a finite value in some objective, neither enter the front nor push
    anyone off it.

    Args:
        results: a row a trial, as `load_results` gives them: a column `status`, and one for each objective.
        objectives: metric names with "maximize" or "minimize"; `OBJECTIVES` has the usual directions.

    Returns:
        Rows of `results` with the same columns, best in the first objective first (ties: in the next one);
        empty when no trial has finished, or a column is missing.

    Example:
        >>> rows = pd.DataFrame({"trial_id": ["a", "b", "c"], "status": "finished", "clean_accuracy": [0.9, 0.8, 0.7],
        ...                      "robust_accuracy": [0.1, 0.3, 0.2]})
        >>> list(front(rows, {"clean_accuracy": "maximize", "robust_accuracy": "maximize"})["trial_id"])
        ['a', 'b']
    """
    if "status" not in results or any(name not in results for name in objectives):
        return results.iloc[:0]
    values = np.column_stack([numbers(results, name) for name in objectives])
    able = (results["status"] == "finished").to_numpy(dtype=bool) & np.isfinite(values).all(axis=1)
    candidates, values, directions = results[able], values[able], list(objectives.values())
    mask = non_dominated(values, directions)
    best_first = np.lexsort(_costs(values[mask], directions).T[::-1])
    return candidates[mask].iloc[best_first].reset_index(drop=True)


class RunningFront:
    """The front of rows that come one by one: `front` of all of them, at the cost of the new one alone.

    A row counts in the place of an earlier one of the same `trial_id`. Only when that one was on the front is
    everything compared again: whoever it pushed off may be back.

    Args:
        objectives: what is compared, and which way is better.
    """

    def __init__(self, objectives: Mapping[str, Direction]):
        self.objectives = dict(objectives)
        self._places: dict[str, int] = {}
        self._points: dict[str, NDArray[np.float64]] = {}  # the costs of all that take part
        self._members: list[str] = []
        self._costs = np.empty((0, len(self.objectives)))  # of the members

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> list[str]:
        """The trials on the front, best first, in the order of `front`."""
        places = [self._places[trial] for trial in self._members]
        return [self._members[i] for i in np.lexsort([places, *self._costs.T[::-1]])]

    @property
    def points(self) -> NDArray[np.float64]:
        """The members' objectives, [n, m]."""
        return _costs(self._costs, list(self.objectives.values()))

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row of `Result.row`; who is not finished, or lacks a finite objective, is not compared."""
        trial = row["trial_id"]
        self._places.setdefault(trial, len(self._places))
        self._points.pop(trial, None)
        if trial in self._members:
            self._compare_all()
        values = np.array([[_number(row.get(name)) for name in self.objectives]])
        if row.get("status") == "finished" and np.isfinite(values).all():
            point = self._points[trial] = _costs(values, list(self.objectives.values()))[0]
            self._enter(trial, point)

    def _enter(self, trial: str, point: NDArray[np.float64]) -> None:
        worse, better = (self._costs > point).any(axis=1), (self._costs < point).any(axis=1)
        if (better & ~worse).any():
            return
        stay = np.asarray(better | ~worse)
        self._members = [*compress(self._members, stay), trial]
        self._costs = np.vstack([self._costs[stay], point])

    def _compare_all(self) -> None:
        trials = list(self._points)
        points = np.array(list(self._points.values())).reshape(len(trials), len(self.objectives))
        on_front = non_dominated(points, ["minimize"] * len(self.objectives))
        self._members, self._costs = list(compress(trials, on_front)), points[on_front]


def numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as floats [n]; NaN where it is empty or no number, or where there is no such column."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _costs(values: NDArray[np.floating], directions: Sequence[Direction]) -> NDArray[np.float64]:
    """The points with every objective turned so that less is better."""
    points = np.asarray(values, dtype=float)
    if points.ndim != 2 or points.shape[1] != len(directions) or not directions:
        raise ValueError(f"{len(directions)} objectives need values of shape [n, {len(directions)}]; {points.shape}")
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    return points * signs
