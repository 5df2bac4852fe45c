"""The trials as points: the front over each pair of objectives and over three, and all choices as parallel lines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from snnsweep.report.charts import Axis, Chart, Dimension, Ends, Series
from snnsweep.report.data import Swept
from snnsweep.report.palette import BLUE, VERDICTS, Look, verdict_look
from snnsweep.result import Direction
from snnsweep.results.front import non_dominated, numbers
from snnsweep.results.words import value

FEW = 60  # points off the front, at most, that show their intervals too: more would hide the front
SPAN = 50.0  # a key whose largest value is so many times its smallest is shown by its logarithm


def front_charts(swept: Swept) -> list[Chart]:
    """One chart of three axes where there are three objectives or more, then one for each pair."""
    names = list(swept.objectives)
    groups = list(_groups(swept))
    charts = []
    if len(names) >= 3:
        series = [_series(*group, *names[:3]) for group in groups]
        x, y, z = (Axis(name) for name in names[:3])  # the way that is better has no room there
        charts.append(Chart("front-3d", f"{', '.join(names[:3])}", series, x, y, z))
    for number, (one, other) in enumerate(combinations(names, 2), start=1):
        series = [_series(*group, one, other) for group in groups]
        if len(swept.finished):
            series.insert(0, attained(swept.finished, one, other, swept.objectives))
        x, y = (axis_of(name, swept.objectives) for name in (one, other))
        charts.append(Chart(f"front-{number}", f"{one} and {other}", series, x, y))
    if len(names) == 1:
        charts.append(_over_trials(swept, names[0]))
    return charts


def axis_of(name: str, objectives: Mapping[str, Direction]) -> Axis:
    """An objective's, with the way that is better."""
    ways = {"maximize": " (higher is better)", "minimize": " (lower is better)"}
    return Axis(name + ways.get(objectives.get(name, ""), ""))


def floats(frame: pd.DataFrame, name: str) -> list[float | None]:
    """A column, with None where it has no finite number."""
    return [float(figure) if math.isfinite(figure) else None for figure in numbers(frame, name)]


def ends(frame: pd.DataFrame, name: str) -> Ends | None:
    """The 95 % intervals of a column; None without them."""
    if f"{name}/low" not in frame or f"{name}/high" not in frame:
        return None
    return floats(frame, f"{name}/low"), floats(frame, f"{name}/high")


def drawable(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows with a finite number in each of these columns."""
    if frame.empty:
        return frame
    able = np.isfinite(np.column_stack([numbers(frame, name) for name in names])).all(axis=1)
    return frame.iloc[np.flatnonzero(able)]


Group = tuple[str, pd.DataFrame, Look, bool]


def _groups(swept: Swept) -> Iterator[Group]:
    """A name, the trials, how they look, and whether their intervals are drawn: by status, and by the audit's "
    "verdict."""
    results, members = swept.results, set(swept.front.get("trial_id", []))
    if results.empty:
        return
    able = drawable(results, list(swept.objectives))
    on_front = able["trial_id"].isin(members)
    finished, infeasible = (able["status"] == status for status in ("finished", "infeasible"))
    parts = (
        ("infeasible", able[infeasible], False, True),
        ("not on the front", able[finished & ~on_front], False, False),
        ("front", able[on_front], True, False),
    )
    for name, rows, front, bad in parts:
        verdicts = rows["audit"].fillna("") if "audit" in rows else pd.Series("", index=rows.index)
        for verdict in (*VERDICTS, *sorted(set(verdicts) - set(VERDICTS))):
            if (verdicts == verdict).any():
                said = VERDICTS.get(verdict, ("", "", f"audit {verdict}"))[2]
                look = verdict_look(verdict, front, infeasible=bad)
                yield f"{name}, {said}", rows[verdicts == verdict], look, front or len(rows) <= FEW


def _series(name: str, rows: pd.DataFrame, look: Look, intervals: bool, x: str, y: str, z: str | None = None) -> Series:
    shown = {
        axis: ends(rows, column) if intervals and column else None
        for axis, column in zip("xyz", (x, y, z), strict=True)
    }
    return Series(
        name,
        floats(rows, x),
        floats(rows, y),
        look,
        z=floats(rows, z) if z else None,
        x_ends=shown["x"],
        y_ends=shown["y"],
        z_ends=shown["z"],
        trials=rows["trial_id"].tolist(),
    )


def attained(finished: pd.DataFrame, x: str, y: str, objectives: Mapping[str, Direction]) -> Series:
    """From the best x on, the best y that some finished trial reaches together with at least that x."""
    values = np.column_stack([numbers(finished, x), numbers(finished, y)])
    best = values[non_dominated(values, [objectives[x], objectives[y]])]
    best = best[np.argsort(-best[:, 0] if objectives[x] == "maximize" else best[:, 0], kind="stable")]
    name = "front of these two objectives"
    return Series(name, best[:, 0].tolist(), best[:, 1].tolist(), Look(BLUE, width=1.4), "steps")


def _over_trials(swept: Swept, name: str) -> Chart:
    """A single objective, over the order in which the trials ended."""
    place = {trial: number for number, trial in enumerate(swept.results.get("trial_id", []), start=1)}
    series = [
        Series(
            label,
            [place[trial] for trial in rows["trial_id"]],
            floats(rows, name),
            look,
            y_ends=ends(rows, name) if intervals else None,
            trials=rows["trial_id"].tolist(),
        )
        for label, rows, look, intervals in _groups(swept)
    ]
    x = Axis("trial, in the order of ending", whole=True)
    return Chart("front-1", f"{name} over the trials", series, x, axis_of(name, swept.objectives))


def parallel_chart(swept: Swept) -> Chart | None:
    """Every finished trial as a line over the varied keys and the objectives; None where nothing varies."""
    rows = swept.finished
    if rows.empty or not swept.varied:
        return None
    dimensions = [_dimension(key, rows[key].tolist()) for key in swept.varied]
    dimensions += [Dimension(name, numbers(rows, name).tolist()) for name in swept.objectives]
    members = set(swept.front["trial_id"])
    chosen = [trial in members for trial in rows["trial_id"]]
    return Chart("parallel", "Varied keys and objectives", dimensions=dimensions, chosen=chosen)


def _dimension(key: str, given: Sequence[Any]) -> Dimension:
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in given):
        texts = [value(key, one) for one in given]
        names = sorted(set(texts))
        return Dimension(key, [float(names.index(text)) for text in texts], names)
    figures = [float(one) for one in given]
    if min(figures) > 0 and max(figures) / min(figures) >= SPAN:
        return Dimension(f"log10 {key}", [math.log10(figure) for figure in figures])
    return Dimension(key, figures)
