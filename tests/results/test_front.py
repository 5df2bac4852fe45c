"""The front against brute force."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snnsweep.result import Direction
from snnsweep.results.front import front, non_dominated

WAYS = st.sampled_from(["maximize", "minimize"])


def beats(a: Sequence[float], b: Sequence[float], directions: Sequence[Direction]) -> bool:
    """The definition, word by word."""
    at_least = [x >= y if way == "maximize" else x <= y for x, y, way in zip(a, b, directions, strict=True)]
    better = [x > y if way == "maximize" else x < y for x, y, way in zip(a, b, directions, strict=True)]
    return all(at_least) and any(better)


def brute_force(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[bool]:
    return [not any(beats(other, point, directions) for other in points) for point in points]


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[list[float]], list[Direction]]:
    """Points in 1 to 4 objectives: few levels (ties, duplicates, both zeros, infinities), or any floats."""
    directions = draw(st.lists(WAYS, min_size=1, max_size=4))
    levels = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, math.inf, -math.inf])
    value = draw(st.sampled_from([levels, st.floats(allow_nan=False)]))
    point = st.lists(value, min_size=len(directions), max_size=len(directions))
    return draw(st.lists(point, max_size=24)), directions


@given(clouds())
def test_equals_brute_force(cloud: tuple[list[list[float]], list[Direction]]) -> None:
    points, directions = cloud
    values = np.array(points, dtype=float).reshape(-1, len(directions))
    mask = non_dominated(values, directions)
    assert mask.dtype == bool
    assert mask.tolist() == brute_force(points, directions)


@given(clouds(), st.randoms())
def test_does_not_depend_on_the_order_of_the_points(cloud: tuple[list[list[float]], list[Direction]], random) -> None:
    points, directions = cloud
    values = np.array(points, dtype=float).reshape(-1, len(directions))
    order = list(range(len(points)))
    random.shuffle(order)
    assert non_dominated(values[order], directions).tolist() == non_dominated(values, directions)[order].tolist()


def test_both_zeros_are_one_value() -> None:
    values = np.array([[0.0, 2.0], [-0.0, 1.0], [-0.0, 2.0], [0.0, 1.0]])
    assert non_dominated(values, ["minimize", "minimize"]).tolist() == [False, True, False, True]
    assert non_dominated(values, ["maximize", "maximize"]).tolist() == [True, False, True, False]


def test_equal_points_all_stay() -> None:
    values = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, -1.0], [0.0, 1.0]])
    assert non_dominated(values, ["maximize", "maximize"]).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3)), np.zeros(2), np.zeros((2, 0)), np.array([[0.0, 1.0], [0.0, math.nan]])]
)
def test_refuses_what_has_no_front(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="objective"):
        non_dominated(values, ["maximize"] * (0 if values.shape == (2, 0) else 2))


def test_ten_thousand_trials_are_no_burden() -> None:
    values = np.random.default_rng(0).normal(size=(10_000, 3))
    on_sphere = np.abs(values) / np.linalg.norm(values, axis=1, keepdims=True)  # the worst case: all of it is the front
    started = time.perf_counter()
    assert 0 < non_dominated(values, ["maximize"] * 3).sum() < 500
    assert non_dominated(on_sphere, ["maximize"] * 3).all()
    assert time.perf_counter() - started < 60  # measured: 2 s


def trials(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"trial_id": [f"t{i}" for i in range(len(next(iter(columns.values()))))], **columns})


def test_sorted_by_the_first_objective_then_the_next() -> None:
    results = trials(status=["finished"] * 5, cost=[3.0, 1.0, 2.0, 1.0, 9.0], gain=[9, 5, 7, 5, 1], note=list("abcde"))
    found = front(results, {"cost": "minimize", "gain": "maximize"})
    assert found["trial_id"].tolist() == ["t1", "t3", "t2", "t0"]
    assert found.columns.tolist() == results.columns.tolist()
    assert front(results, {"gain": "maximize", "cost": "minimize"})["note"].tolist() == ["a", "c", "b", "d"]


@example([("finished", math.inf, 0.0), ("finished", 1.0, -math.inf), ("finished", 0.0, 0.0), ("stopped", 2.0, -1.0)])
@given(st.lists(st.tuples(st.sampled_from(["finished", "failed", "stopped", "infeasible"]), st.floats(), st.floats())))
def test_only_finished_trials_with_finite_values_take_part(rows: list[tuple[str, float, float]]) -> None:
    results = trials(status=[r[0] for r in rows], up=[r[1] for r in rows], down=[r[2] for r in rows])
    found = front(results, {"up": "maximize", "down": "minimize"})
    able = [i for i, r in enumerate(rows) if r[0] == "finished" and math.isfinite(r[1]) and math.isfinite(r[2])]
    kept = brute_force([rows[i][1:] for i in able], ["maximize", "minimize"])
    assert sorted(found["trial_id"]) == sorted(f"t{i}" for i, k in zip(able, kept, strict=True) if k)


def test_nothing_has_finished() -> None:
    objectives: dict[str, Direction] = {"clean_accuracy": "maximize"}
    for results in (
        pd.DataFrame(),
        pd.DataFrame(columns=["trial_id", "status"]),
        trials(status=["failed", "stopped"]),
        trials(status=["failed"], clean_accuracy=[None]),
        trials(status=["infeasible"], clean_accuracy=[0.9]),
    ):
        found = front(results, objectives)
        assert len(found) == 0
        assert found.columns.tolist() == results.columns.tolist()
