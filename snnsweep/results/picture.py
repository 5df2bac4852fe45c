"""The front as a picture: one panel per pair of objectives."""

from collections.abc import Mapping
from itertools import combinations, zip_longest
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snnsweep.result import Direction
from snnsweep.results.front import numbers

_ORDER = "trial, in the order of ending"
_GREY, _DARK, _BLUE = "#a6a6a6", "#4d4d4d", "#0072b2"  # the blue of Okabe and Ito's colour-blind safe palette


def front_picture(results: pd.DataFrame, front: pd.DataFrame, objectives: Mapping[str, Direction]) -> Figure:
    """Finished trials grey, infeasible ones hollow, the front in colour.

    Two objectives: the front is joined by the staircase of what has been attained. One: its value over the
    order of the trials. Bars are the 95 % intervals of an objective with columns `<objective>/low` and
    `<objective>/high`.

    Args:
        results: every trial, as `load_results` gives them.
        front: those of them on the front.
        objectives: at least one name with its direction.
    """
    groups = _groups(results, front)
    pairs = list(combinations(objectives, 2)) or [(_ORDER, name) for name in objectives]
    columns = min(len(pairs), 3)
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(max(4.4 * columns, 6.4), 4.0 * lines + 0.8), layout="constrained")
    figure.suptitle(_title(results, front))
    for panel, pair in zip_longest(figure.subplots(lines, columns, squeeze=False).flat, pairs):
        if pair is None:
            panel.set_axis_off()
            continue
        x, y = pair
        _draw(panel, groups, x, y)
        panel.set_xlabel(_label(x, objectives))
        panel.set_ylabel(_label(y, objectives))
        if len(objectives) == 2:
            _staircase(panel, front, x, y, objectives[x])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _groups(results: pd.DataFrame, front: pd.DataFrame) -> dict[str, pd.DataFrame]:
    ordered = results.assign(**{_ORDER: np.arange(1, len(results) + 1)})
    if not {"trial_id", "status"} <= set(results):  # no trial has ended
        return dict.fromkeys(("finished", "infeasible", "front"), ordered.iloc[:0])
    on_front = ordered["trial_id"].isin(front.get("trial_id", []))
    finished, infeasible = (ordered[(ordered["status"] == s) & ~on_front] for s in ("finished", "infeasible"))
    return {"finished": finished, "infeasible": infeasible, "front": ordered[on_front]}


def _draw(panel: Axes, groups: Mapping[str, pd.DataFrame], x: str, y: str) -> None:
    panel.grid(color="#ebebeb", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    looks: dict[str, dict[str, Any]] = {
        "finished": {"s": 22, "facecolors": _GREY, "edgecolors": "none"},
        "infeasible": {"s": 26, "facecolors": "none", "edgecolors": _DARK, "linewidths": 0.9},
        "front": {"s": 46, "facecolors": _BLUE, "edgecolors": "white", "linewidths": 0.7},
    }
    for layer, (name, look) in enumerate(looks.items(), start=2):
        frame = groups[name]
        at = numbers(frame, x), numbers(frame, y)
        panel.scatter(*at, **look, zorder=layer, label=name)
        errors: dict[str, Any] = {"xerr": _interval(frame, x), "yerr": _interval(frame, y)}
        if name == "infeasible" or frame.empty or (errors["xerr"] is None and errors["yerr"] is None):
            continue
        colour, note = (_BLUE, "95 % interval") if name == "front" else (_GREY, None)
        panel.errorbar(*at, **errors, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.45, zorder=layer, label=note)
    if groups["front"].empty:
        panel.text(0.5, 0.94, "no trial is on the front", transform=panel.transAxes, ha="center", color=_DARK)
    if not any(map(len, groups.values())):
        panel.set(xticks=[], yticks=[])


def _interval(frame: pd.DataFrame, name: str) -> np.ndarray | None:
    """[2, n]: from the value down to the low end and up to the high one; None without such columns."""
    if f"{name}/low" not in frame or f"{name}/high" not in frame:
        return None
    value = numbers(frame, name)
    return np.maximum([value - numbers(frame, f"{name}/low"), numbers(frame, f"{name}/high") - value], 0.0)


def _staircase(panel: Axes, front: pd.DataFrame, x: str, y: str, direction: Direction) -> None:
    """From the best x on, the best y that some trial reaches together with at least that x."""
    across, up = numbers(front, x), numbers(front, y)
    best_first = np.argsort(-across if direction == "maximize" else across, kind="stable")
    panel.plot(across[best_first], up[best_first], drawstyle="steps-post", color=_BLUE, linewidth=1.2, zorder=3)


def _label(name: str, objectives: Mapping[str, Direction]) -> str:
    if name not in objectives:
        return name
    return f"{name}  (higher is better →)" if objectives[name] == "maximize" else f"{name}  (← lower is better)"


def _title(results: pd.DataFrame, front: pd.DataFrame) -> str:
    counts = results["status"].value_counts() if "status" in results else pd.Series(dtype=int)
    parts = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none has ended"
    trials = "1 trial" if len(results) == 1 else f"{len(results)} trials"
    return f"{trials} ({parts}), {len(front)} on the front"
