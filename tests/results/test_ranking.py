"""Hypervolume against Monte Carlo and grids, tau against its definition, and a front compared with its confirmation."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnsweep.result import PASS
from snnsweep.results.comparison import compare
from snnsweep.results.ranking import hypervolume, is_share, kendall_tau, reference_point, t_interval

WAYS = st.sampled_from(["maximize", "minimize"])


@st.composite
def grids(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Up to eight whole points in 1 to 4 objectives, some of them beyond the reference."""
    ways = draw(st.lists(WAYS, min_size=1, max_size=4))
    point = st.lists(st.integers(0, 5), min_size=len(ways), max_size=len(ways))
    points = draw(st.lists(point, max_size=8))
    return np.array(points, dtype=float).reshape(-1, len(ways)), np.array(draw(point), dtype=float), ways


@given(grids())
def test_hypervolume_counts_unit_cells(case: tuple[np.ndarray, np.ndarray, list[Any]]) -> None:
    """Between whole points the volume is the number of unit cells whose centre some point dominates."""
    points, reference, ways = case
    centres = np.stack(np.meshgrid(*[np.arange(5) + 0.5] * len(ways)), axis=-1).reshape(-1, len(ways))
    signs = np.array([1.0 if way == "maximize" else -1.0 for way in ways])
    inside = ((centres - reference) * signs > 0).all(axis=1)
    dominated = np.zeros(len(centres), dtype=bool)
    for point in points:
        dominated |= ((point - centres) * signs > 0).all(axis=1)
    assert hypervolume(points, reference, ways) == pytest.approx((inside & dominated).sum(), abs=1e-9)


def test_hypervolume_against_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    points, draws = rng.random((12, 3)), rng.random((200_000, 3))
    covered = (draws[:, None, :] < points[None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(points, np.zeros(3), ["maximize"] * 3) == pytest.approx(covered, abs=0.005)


def test_hypervolume_by_hand() -> None:
    assert hypervolume(np.array([[0.5, 3.0], [0.8, 5.0]]), np.array([0.0, 6.0]), ["maximize", "minimize"]) == (
        pytest.approx(0.5 * 3 + 0.3 * 1)
    )
    assert hypervolume(np.zeros((0, 2)), np.zeros(2), ["maximize"] * 2) == 0
    with pytest.raises(ValueError, match="finite"):
        hypervolume(np.array([[math.inf]]), np.zeros(1), ["maximize"])
    with pytest.raises(ValueError, match="2 objectives"):
        hypervolume(np.zeros((1, 3)), np.zeros(2), ["maximize"] * 2)


def test_the_reference_is_the_worst_possible_or_beyond_the_worst_seen() -> None:
    ways: Any = {"robust_accuracy": "maximize", "audit/vanished_share": "minimize", "activity/synops": "minimize"}
    one = {"robust_accuracy": 0.4, "audit/vanished_share": 0.0, "activity/synops": 7.0}
    two = {"robust_accuracy": 0.2, "audit/vanished_share": 0.1, "activity/synops": 9.0}
    worst = {"robust_accuracy": 0.0, "audit/vanished_share": 1.0, "activity/synops": 9.2}
    assert reference_point(ways, [one, two]) == reference_point(ways, [two, one]) == pytest.approx(worst)
    assert reference_point({"activity/synops": "minimize"}, [one]) == pytest.approx({"activity/synops": 7.7})
    assert reference_point({"time/train_s": "maximize"}, [{"time/train_s": 0.0}]) == {"time/train_s": -0.1}
    assert is_share("robust_accuracy/pgd")
    assert not is_share("time/train_s")


@given(st.lists(st.integers(0, 4), min_size=2, max_size=8), st.data())
def test_tau_by_its_definition(before: list[int], data: st.DataObject) -> None:
    after = data.draw(st.lists(st.integers(0, 4), min_size=len(before), max_size=len(before)))
    pairs = list(combinations(range(len(before)), 2))
    signs = [(np.sign(before[i] - before[j]), np.sign(after[i] - after[j])) for i, j in pairs]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    tau = kendall_tau(before, after)
    if untied:
        assert tau == pytest.approx(sum(a * b for a, b in signs) / untied**0.5)
    else:
        assert tau is None


def test_tau_of_too_few() -> None:
    assert kendall_tau([], []) is None
    assert kendall_tau([1.0], [2.0]) is None


def test_t_interval_from_the_table() -> None:
    """t(0.975) is 4.303 with two degrees of freedom and 12.706 with one."""
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)
    assert t_interval([0.4, 0.6]) == pytest.approx((0.5 - 12.706 * 0.1, 0.5 + 12.706 * 0.1), abs=1e-3)
    with pytest.raises(ValueError, match="given 1"):
        t_interval([1.0])


def row(name: str, clean: float, robust: float, status: str = "finished", **more: Any) -> dict[str, Any]:
    """A row as a sweep or a confirmation writes it."""
    figures = {"clean_accuracy": clean, "robust_accuracy": robust}
    return {"trial_id": name, "status": status, "cause": "", "warnings": [], **figures, **more}


ORIGIN = {"clean_accuracy": 0.0, "robust_accuracy": 0.0}
WAYS_OF = {"clean_accuracy": "maximize", "robust_accuracy": "maximize"}


def test_a_front_and_its_confirmation_by_hand() -> None:
    """a keeps its place, b is beaten now, c vanishes its gradient, one of d's pairs failed."""
    members = [row("a", 0.9, 0.3), row("b", 0.8, 0.5), row("c", 0.7, 0.6), row("d", 0.6, 0.7)]
    rows = [row("a1", 0.8, 0.2), row("a2", 0.6, 0.4), row("b1", 0.5, 0.1), row("b2", 0.5, 0.1), row("c1", 0.7, 0.6)]
    rows += [row("c2", 0.7, 0.6, "infeasible", cause="vanished", warnings=["so"]), row("d1", 0.6, 0.7)]
    rows += [row("d2", math.nan, math.nan, "failed")]
    pairs = {name: [f"{name}1", f"{name}2"] for name in "abcd"}
    found = compare(members, rows, pairs, WAYS_OF, ORIGIN)
    assert [one["status"] for one in found["members"]] == ["finished", "finished", "infeasible", "failed"]
    assert (found["front_before"], found["front_after"]) == (["a", "b", "c", "d"], ["a"])
    assert [one["on_front"] for one in found["members"]] == [True, False, False, False]
    stairs = 0.9 * 0.3 + 0.8 * 0.2 + 0.7 * 0.1 + 0.6 * 0.1
    assert found["hypervolume"] == pytest.approx({"before": stairs, "after": 0.7 * 0.3})
    assert found["kendall_tau"] == {"metric": "robust_accuracy", "tau": -1.0, "n": 2}
    whatever = found["whatever_the_audit_says"]
    assert (whatever["front_after"], whatever["hypervolume"]) == (["c"], pytest.approx(0.7 * 0.6))
    assert whatever["kendall_tau"] == {"metric": "robust_accuracy", "tau": pytest.approx(1 / 3), "n": 3}
    assert found["members"][2]["causes"] == ["c2: vanished"]
    assert found["members"][2]["warnings"] == ["c2: so"]
    first = found["members"][0]["after"]["robust_accuracy"]
    assert first == {"value": pytest.approx(0.3), "low": 0.0, "high": 1.0, "n": 2}  # t would leave [0, 1]


def test_one_pair_keeps_its_own_interval_and_a_failed_one_has_no_figure() -> None:
    figures = {"robust_accuracy/low": 0.1, "robust_accuracy/high": 0.4}
    rows = [row("a1", 0.8, 0.2, **figures), row("b1", math.nan, math.nan, "failed", cause="Diverged")]
    found = compare([row("a", 0.9, 0.3), row("b", 0.8, 0.5)], rows, {"a": ["a1"], "b": ["b1"]}, WAYS_OF, ORIGIN)
    assert found["members"][0]["after"]["robust_accuracy"] == {"value": 0.2, "low": 0.1, "high": 0.4, "n": 1}
    assert found["members"][1]["after"]["robust_accuracy"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["kendall_tau"]["tau"] is None
    assert found["kendall_tau"]["n"] == 1


def test_a_figure_that_is_no_number_takes_a_member_off() -> None:
    found = compare([row("a", 0.5, 0.4)], [row("a1", 0.5, math.nan)], {"a": ["a1"]}, WAYS_OF, ORIGIN)
    assert (found["members"][0]["status"], found["front_after"]) == ("infeasible", [])
    assert found["whatever_the_audit_says"]["front_after"] == []


def test_nobody_stays() -> None:
    rows = [row("a1", math.nan, math.nan, "failed")]
    found = compare([row("a", 0.5, 0.4)], rows, {"a": ["a1"]}, WAYS_OF, ORIGIN)
    assert found["front_after"] == []
    assert found["hypervolume"] == pytest.approx({"before": 0.2, "after": 0.0})


def test_nothing_is_said_of_the_front_before_every_pair_has_ended() -> None:
    members, pairs = [row("a", 0.5, 0.4), row("b", 0.4, 0.5)], {"a": ["a1", "a2"], "b": ["b1"]}
    found = compare(members, [row("a1", 0.3, 0.2), row("b1", 0.3, 0.2)], pairs, WAYS_OF, ORIGIN)
    assert found["pairs"] == {"asked": 3, "ended": 2}
    assert [one["status"] for one in found["members"]] == ["unfinished", "finished"]
    for judged in (found, found["whatever_the_audit_says"]):
        assert judged["front_after"] is None
        assert judged["kendall_tau"] == {"metric": "robust_accuracy", "tau": None, "n": 0}
    assert found["hypervolume"]["after"] is found["whatever_the_audit_says"]["hypervolume"] is None
    assert [one["on_front"] for one in found["members"]] == [None, None]
    assert found["members"][0]["after"]["robust_accuracy"]["value"] == 0.2  # what there is


def test_the_gravest_verdict_of_the_pairs() -> None:
    rows = [row("a1", 0.3, 0.2, audit="suspect"), row("a2", 0.3, 0.2, "infeasible", audit="fail")]
    found = compare([row("a", 0.5, 0.4, audit=PASS)], rows, {"a": ["a1", "a2"]}, WAYS_OF, ORIGIN)
    assert found["members"][0]["audit"] == {"before": PASS, "after": "fail"}
