"""The front against brute force."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snnsweep.result import Direction
from snnsweep.results.front import RunningFront, front, non_dominated
from snnsweep.results.store import Store, load_front, load_results

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
    started = time.process_time()
    assert 0 < non_dominated(values, ["maximize"] * 3).sum() < 500
    assert non_dominated(on_sphere, ["maximize"] * 3).all()
    assert time.process_time() - started < 60  # measured: 2 s


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


LEVELS = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 7, math.nan, math.inf, -math.inf, None])
STATUS = st.sampled_from(["finished", "finished", "finished", "stopped", "failed", "infeasible"])
ROWS = st.fixed_dictionaries(
    {"trial_id": st.integers(0, 9).map("t{}".format), "status": STATUS},
    optional={"up": LEVELS, "down": st.one_of(LEVELS, st.floats()), "more": LEVELS},
)


AGAIN = [{"trial_id": "t0", "status": "finished", "up": up} for up in (2.0, 1.0, math.nan)]
ENDED = [("a", "failed"), ("b", "finished"), ("a", "finished")]
TIED = [{"trial_id": trial, "status": status, "up": 1} for trial, status in ENDED]


@settings(deadline=None)
@example(TIED, ["up"])
@example(AGAIN, ["up"])
@given(st.lists(ROWS, max_size=16), st.sampled_from([["up"], ["up", "down"], ["down", "more", "up"]]))
def test_a_running_front_is_the_front_of_all_rows_so_far(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Any trial may come back, in any status: also a finished one, which lets others onto the front again."""
    objectives: dict[str, Direction] = {name: "minimize" if name == "down" else "maximize" for name in names}
    running, last = RunningFront(objectives), dict[str, dict[str, Any]]()
    assert running.members == []
    for row in rows:
        running.add(row)
        last[row["trial_id"]] = row
        whole = pd.DataFrame(list(last.values())).reindex(columns=["trial_id", "status", *names])
        assert running.members == front(whole, objectives)["trial_id"].tolist()
        assert len(running) == len(running.members)


def test_a_running_front_bears_ten_thousand_trials() -> None:
    points = np.abs(np.random.default_rng(0).normal(size=(10_000, 3)))
    running = RunningFront(dict.fromkeys("abc", "minimize"))
    started = time.process_time()
    for i, point in enumerate(points):
        running.add({"trial_id": f"t{i}", "status": "finished", **dict(zip("abc", point.tolist(), strict=True))})
    assert time.process_time() - started < 30  # measured: 0.4 s
    on_front = set(np.flatnonzero(non_dominated(points, ["minimize"] * 3)))
    assert set(running.members) == {f"t{i}" for i in on_front}


def test_a_store_keeps_the_front_that_a_reader_would_find(tmp_path: Path) -> None:
    objectives: dict[str, Direction] = {"up": "maximize", "down": "minimize"}
    rows = Store(tmp_path, objectives=objectives)
    assert rows.front_size == 0
    for i, (status, up, down) in enumerate(
        [("stopped", 9.0, 0.0), ("finished", 1.0, 1.0), ("finished", 2.0, 2.0), ("finished", 0.5, 1.5)]
    ):
        rows.add({"trial_id": f"t{i}", "status": status, "up": up, "down": down, "warnings": [status]})
        expected = front(load_results(tmp_path), objectives)
        pd.testing.assert_frame_equal(load_front(tmp_path), expected)
        assert rows.front_size == len(expected) == max(0, min(i, 2))
    rows.add({"trial_id": "t0", "status": "finished", "up": 9.0, "down": 0.0})
    assert load_front(tmp_path)["trial_id"].tolist() == ["t0"]
    (tmp_path / "front.parquet").unlink()
    again = Store(tmp_path, objectives=objectives)  # a resumed sweep
    assert again.front_size == len(load_front(tmp_path)) == 1
