"""Charts as plotly draws them: plain dicts for JSON.

Colours are names with an `@`, which the page replaces by those of its light or dark palette. plotly takes texts for a
kind of HTML: every one is escaped here. What a point says when it is hovered over stands once on the page, by trial.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from snnsweep.report.charts import Axis, Chart, Dimension, Ends, Series, Value
from snnsweep.report.palette import BLUE, GREY, Look

CLOSED = ("x", "cross")  # marks of which three axes know no hollow form
DIGITS = 6
HEIGHT, TALL, BAR = 360, 500, 26  # TALL: under the names of more than FEW categories
FEW = 8


def figure(chart: Chart) -> dict[str, Any]:
    """`data`, `layout` and, for parallel coordinates and three axes, `needs` "webgl"."""
    if chart.dimensions:
        return _parallel(chart)
    if chart.z is not None:
        return _three(chart)
    bars = any(series.kind == "bars" for series in chart.series)
    height = max(160, 90 + BAR * max((len(series.x) for series in chart.series), default=0)) if bars else HEIGHT
    layout = _layout(height)
    layout |= {"xaxis": _axis(chart.x) | {"automargin": True}, "yaxis": _axis(chart.y) | {"automargin": True}}
    for axis, values in (("xaxis", [s.x for s in chart.series]), ("yaxis", [s.y for s in chart.series])):
        if categories := _categories(values):
            layout[axis] |= {"type": "category", "categoryarray": categories, "categoryorder": "array"}
            layout["height"] = max(layout["height"], TALL if axis == "xaxis" and len(categories) > FEW else 0)
    return {"data": [_trace(series) for series in chart.series], "layout": layout}


def _trace(series: Series) -> dict[str, Any]:
    look = series.look
    shared: dict[str, Any] = {"name": text(series.name), "opacity": look.opacity, "hoverinfo": "x+y+name"}
    if series.kind == "bars":
        bar = {"type": "bar", "orientation": "h", "marker": {"color": f"@{look.colour}"}, "hoverinfo": "x+y"}
        return shared | bar | {"x": values(series.x), "y": values(series.y)}
    modes = {"points": "markers", "both": "lines+markers", "lines": "lines", "steps": "lines"}
    trace = shared | {"type": "scatter", "mode": modes[series.kind], "x": values(series.x), "y": values(series.y)}
    trace["marker"] = _marker(look)
    trace["line"] = {"color": f"@{look.colour}", "width": look.width, "dash": look.dash}
    if series.kind == "steps":
        trace["line"]["shape"] = "hv"
    return trace | _intervals(series, look) | _whose(series)


def _three(chart: Chart) -> dict[str, Any]:
    data = []
    for series in chart.series:
        look = series.look
        trace = {"type": "scatter3d", "mode": "markers", "name": text(series.name), "opacity": look.opacity}
        trace |= {"x": values(series.x), "y": values(series.y), "z": values(series.z or ())}
        marker = _marker(look)
        if look.mark in CLOSED:
            marker["symbol"] = look.mark
        marker["size"] *= 0.7
        data.append(trace | {"marker": marker} | _intervals(series, look) | _whose(series))
    layout = _layout(520)
    axes = {
        name: _axis(axis) | {"backgroundcolor": "@ground"}
        for name, axis in zip("xyz", (chart.x, chart.y, chart.z), strict=True)
        if axis
    }
    layout["scene"] = {f"{name}axis": axis for name, axis in axes.items()} | {"bgcolor": "@ground"}
    camera = {"eye": {"x": 1.75, "y": 1.75, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.12}}
    layout["scene"] |= {"dragmode": "turntable", "camera": camera}
    layout["margin"] = {"l": 0, "r": 0, "t": 8, "b": 0}
    return {"data": data, "layout": layout, "needs": "webgl"}


def _parallel(chart: Chart) -> dict[str, Any]:
    line: dict[str, Any] = {"color": [int(one) for one in chart.chosen], "cmin": 0, "cmax": 1, "showscale": False}
    line["colorscale"] = [[0, f"@{GREY}"], [1, f"@{BLUE}"]]
    trace: dict[str, Any] = {
        "type": "parcoords",
        "line": line,
        "dimensions": [_dimension(one) for one in chart.dimensions],
    }
    trace |= {name: {"color": "@text"} for name in ("labelfont", "tickfont")} | {"labelangle": -20}
    trace["rangefont"] = {"color": "@text", "size": 9}
    trace["unselected"] = {"line": {"color": f"@{GREY}", "opacity": 0.12}}
    layout = _layout(440)
    layout["margin"] = {"l": 90, "r": 60, "t": 110, "b": 30}
    return {"data": [trace], "layout": layout, "needs": "webgl", "width": 130 * len(chart.dimensions)}


def _dimension(one: Dimension) -> dict[str, Any]:
    found: dict[str, Any] = {"label": text(one.label), "values": values(one.values)}
    whole = sorted(set(one.values))
    if one.names is None and len(whole) <= FEW and all(float(count).is_integer() for count in whole):
        found |= {"tickvals": whole}
    if one.names is not None:
        found |= {"tickvals": list(range(len(one.names))), "ticktext": [text(name) for name in one.names]}
        found["range"] = [-0.3, max(len(one.names) - 0.7, 0.3)]
    return found


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "showlegend": False,  # the page has one of its own, which a screen reader reads
        "paper_bgcolor": "@ground",
        "plot_bgcolor": "@ground",
        "font": {"color": "@text", "family": "system-ui, sans-serif", "size": 12},
        "margin": {"l": 58, "r": 14, "t": 14, "b": 48},
        "hoverlabel": {"align": "left", "bgcolor": "@ground", "bordercolor": "@grey", "font": {"color": "@text"}},
        "hovermode": "closest",
    }


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": {"text": text(axis.label)},
        "gridcolor": "@grid",
        "linecolor": "@grid",
        "zeroline": False,
    }
    if axis.log:
        found["type"] = "log"
    if axis.whole:
        found["tickformat"] = ",d"
    if axis.low is not None or axis.high is not None:
        found["autorangeoptions"] = {"include": [one for one in (axis.low, axis.high) if one is not None]}
    return found


def _marker(look: Look) -> dict[str, Any]:
    marker: dict[str, Any] = {"symbol": look.mark, "size": look.size, "color": f"@{look.colour}"}
    if look.hollow:
        marker["symbol"] = f"{look.mark}-open"
    elif look.size >= 10:
        marker["line"] = {"color": "@ground", "width": 1}
    return marker


def _intervals(series: Series, look: Look) -> dict[str, Any]:
    pairs = (("x", series.x, series.x_ends), ("y", series.y, series.y_ends), ("z", series.z, series.z_ends))
    return {f"error_{axis}": _errors(at, ends, look) for axis, at, ends in pairs if ends is not None and at is not None}


def _errors(at: Sequence[Value], ends: Ends, look: Look) -> dict[str, Any]:
    """Lengths from the figure to both ends; nothing where an end is not known."""

    def length(one: Value, end: float | None) -> float:
        return 0.0 if end is None or not isinstance(one, int | float) or math.isnan(end) else abs(one - end)

    up, down = ([length(*pair) for pair in zip(at, side, strict=True)] for side in (ends[1], ends[0]))
    return {
        "type": "data",
        "symmetric": False,
        "array": values(up),
        "arrayminus": values(down),
        "color": f"@{look.colour}",
        "thickness": 1,
        "width": 0,
    }


def _whose(series: Series) -> dict[str, Any]:
    return {"ids": list(series.trials)} if series.trials is not None else {}


def _categories(columns: Sequence[Sequence[Value]]) -> list[str]:
    """All texts of an axis, in the order in which they come; [] where it has numbers."""
    return [text(one) for one in dict.fromkeys(one for column in columns for one in column if isinstance(one, str))]


def values(given: Sequence[Value]) -> list[Value]:
    """Numbers to six significant digits, texts escaped."""
    return [_value(one) for one in given]


def _value(one: Value) -> Value:
    if isinstance(one, str):
        return text(one)
    if one is None or (isinstance(one, float) and not math.isfinite(one)):
        return None
    return one if isinstance(one, int) else float(f"{one:.{DIGITS}g}")


def text(said: str) -> str:
    """As plotly shows it word for word."""
    return escape(said, quote=False)
