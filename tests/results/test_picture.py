"""The picture shows the trials that it was given, where they belong."""

import io
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from snnsweep.result import Direction
from snnsweep.results.front import front
from snnsweep.results.picture import front_picture

WAYS: dict[str, Direction] = {"gain": "maximize", "cost": "minimize", "worth": "maximize", "time": "minimize"}
RESULTS = pd.DataFrame(
    {
        "trial_id": [f"t{i}" for i in range(7)],
        "status": ["finished", "finished", "finished", "finished", "infeasible", "failed", "stopped"],
        "gain": [0.9, 0.5, 0.7, 0.4, 0.95, np.nan, 0.99],
        "cost": [3.0, 1.0, 2.0, 4.0, 0.5, np.nan, 0.1],
        "worth": [0.1, 0.2, 0.3, 0.1, 0.5, np.nan, 0.9],
        "time": [5.0, 6.0, 7.0, 8.0, 1.0, np.nan, 0.1],
    }
)


def picture(names: list[str], results: pd.DataFrame = RESULTS) -> Figure:
    objectives = {name: WAYS[name] for name in names}
    return front_picture(results, front(results, objectives), objectives)


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison]


def points(panel: Axes, label: str) -> set[tuple[float, float]]:
    found = [c for c in panel.collections if isinstance(c, PathCollection) and c.get_label() == label]
    return {(float(x), float(y)) for c in found for x, y in c.get_offsets()}


@pytest.mark.parametrize("names", [["gain", "cost"], ["gain", "cost", "worth"], ["gain", "cost", "worth", "time"]])
def test_a_panel_for_each_pair(names: list[str]) -> None:
    figure = picture(names)
    pairs = [(p.get_xlabel().split()[0], p.get_ylabel().split()[0]) for p in panels(figure)]
    assert pairs == list(combinations(names, 2))
    figure.savefig(io.BytesIO())


def test_each_trial_is_where_its_values_say() -> None:
    (panel,) = panels(picture(["gain", "cost"]))
    assert points(panel, "front") == {(0.9, 3.0), (0.5, 1.0), (0.7, 2.0)}
    assert points(panel, "finished") == {(0.4, 4.0)}
    assert points(panel, "infeasible") == {(0.95, 0.5)}
    hollow = next(c for c in panel.collections if c.get_label() == "infeasible")
    assert len(hollow.get_facecolor()) == 0
    assert panel.get_xlabel() == "gain  (higher is better →)"
    assert panel.get_ylabel() == "cost  (← lower is better)"


def test_the_staircase_is_what_has_been_attained() -> None:
    """At every gain, the line is at the least cost among the front's trials with at least that gain."""
    (panel,) = panels(picture(["gain", "cost"]))
    (line,) = panel.get_lines()
    corners = line.get_path().vertices.tolist()
    assert corners[0] == [0.9, 3.0]
    assert corners[-1] == [0.5, 1.0]
    members = [(0.9, 3.0), (0.5, 1.0), (0.7, 2.0)]
    for gain in (0.55, 0.65, 0.75, 0.85):
        (level,) = [y for (x, y), (to, up) in pairwise(corners) if y == up and to < gain < x]
        assert level == min(cost for other, cost in members if other >= gain)


def test_three_objectives_have_no_line() -> None:
    assert not any(panel.get_lines() for panel in panels(picture(["gain", "cost", "worth"])))


def test_one_objective_is_drawn_over_the_order_of_the_trials() -> None:
    (panel,) = panels(picture(["gain"]))
    assert points(panel, "front") == {(1.0, 0.9)}
    assert points(panel, "finished") == {(2.0, 0.5), (3.0, 0.7), (4.0, 0.4)}
    assert points(panel, "infeasible") == {(5.0, 0.95)}
    assert panel.get_ylabel().startswith("gain")


def test_intervals_are_drawn_where_they_are_known() -> None:
    known = RESULTS.assign(**{"gain/low": RESULTS["gain"] - 0.05, "gain/high": RESULTS["gain"] + 0.02})
    (panel,) = panels(picture(["gain", "cost"], known))
    bars = [c for c in panel.collections if isinstance(c, LineCollection)]
    ends = {tuple(np.round(s[:, 0], 9)) for c in bars for s in c.get_segments()}
    assert ends == {(0.85, 0.92), (0.45, 0.52), (0.65, 0.72), (0.35, 0.42)}
    (panel,) = panels(picture(["gain", "cost"]))
    assert not [c for c in panel.collections if isinstance(c, LineCollection)]


def test_the_title_counts_the_trials() -> None:
    title = picture(["gain", "cost"]).get_suptitle()
    assert title == "7 trials (4 finished, 1 infeasible, 1 failed, 1 stopped), 3 on the front"


@pytest.mark.parametrize("names", [["gain"], ["gain", "cost"], ["gain", "cost", "worth"]])
@pytest.mark.parametrize("results", [pd.DataFrame(), RESULTS.iloc[:0], RESULTS.iloc[4:]])
def test_without_a_front_it_says_so(names: list[str], results: pd.DataFrame) -> None:
    figure = picture(names, results)
    for panel in panels(figure):
        assert "no trial is on the front" in {text.get_text() for text in panel.texts}
    figure.savefig(io.BytesIO())


def test_a_metric_that_not_every_trial_has() -> None:
    partly = RESULTS.astype({"gain": "Float64"}).assign(gain=lambda frame: frame["gain"].where(frame.index != 1))
    (panel,) = panels(picture(["gain", "cost"], partly))
    assert points(panel, "front") == {(0.9, 3.0), (0.7, 2.0)}
