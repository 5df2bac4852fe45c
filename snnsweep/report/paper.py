"""The pictures of a report as files for papers: matplotlib draws the same charts on white ground, at column width.

matplotlib and not plotly's own export, which drives a Chrome: a cluster's head has none.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from snnsweep.report.charts import Chart, Dimension, Ends, Series, Value
from snnsweep.report.data import Swept
from snnsweep.report.palette import BLUE, GREY, LIGHT, VERMILION, Look
from snnsweep.report.saving import save
from snnsweep.report.sections import sections

FORMATS = ("png", "pdf", "svg")
COLUMN, PAGE = 3.5, 7.0  # inches: a column of two, and both
MARKS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "x": "X"}
DASHES = {"solid": "-", "dash": "--", "dot": ":"}
STYLE: Any = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "axes.titlesize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.color": LIGHT["text"],
    "pdf.fonttype": 42,  # TrueType, embedded
    "svg.fonttype": "path",
    "svg.hashsalt": "snnsweep",
}


def write(swept: Swept, kind: str) -> list[Path]:
    """Writes every picture of a sweep's report as `report/NAME.<kind>`, and returns the paths.

    Args:
        kind: of `FORMATS`.

    Raises:
        SnnSweepError: a file cannot be written.
    """
    charts, said = [chart for part in sections(swept) for chart in part.charts], mark(swept)
    return [save(swept.folder / "report" / f"{chart.name}.{kind}", encoded(chart, kind, said)) for chart in charts]


def mark(swept: Swept) -> str:
    """What a picture has to say of its sweep, since it is passed on without the page; "" for nothing."""
    said = ["smoke run: the figures mean nothing"] if swept.facts["smoke"] else []
    if swept.facts["status"] != "finished":
        said.append(f"not finished: {len(swept.results)} trials have ended")
    return "; ".join(said)


def encoded(chart: Chart, kind: str, said: str = "") -> bytes:
    """A chart as the content of a file, with what has to be said above it."""
    sink = io.BytesIO()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})  # the same rows, the same file
    with mpl.rc_context(STYLE):
        figure = picture(chart)
        if said:
            figure.suptitle(said, fontsize=7, color=LIGHT[VERMILION])
        figure.savefig(sink, format=kind, dpi=300, facecolor="white", metadata=dates)
    return sink.getvalue()


def picture(chart: Chart) -> Figure:
    """A chart as a matplotlib figure."""
    if chart.dimensions:
        return _parallel(chart)
    wide = len({one for series in chart.series for one in series.x if isinstance(one, str)}) > 8
    figure = Figure(figsize=(PAGE if wide else COLUMN, 3.6 if chart.z else 3.2), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d" if chart.z else None)
    for series in chart.series:
        _draw(axes, series)
    axes.set_xlabel(_plain(chart.x.label))
    axes.set_ylabel(_plain(chart.y.label))
    if chart.z:
        axes.set_zlabel(_plain(chart.z.label))
        axes.view_init(elev=22, azim=45)
        axes.set_box_aspect(None, zoom=0.82)  # else the label of z is cut off
    else:
        _limit(axes, chart)
    if wide:
        axes.tick_params(axis="x", rotation=90, labelsize=6)
    if sum(bool(series.name) for series in chart.series) > 1:
        figure.legend(loc="outside lower center", ncols=4 if wide else 2)
    return figure


def _draw(axes: Axes, series: Series) -> None:
    look, name = series.look, _plain(series.name) or "_"  # matplotlib leaves "_" out of a legend
    colour = LIGHT[look.colour]
    if series.kind == "bars":
        axes.barh([_plain(str(one)) for one in series.y], _floats(series.x), color=colour, label=name)
        return
    at: Any = [_shown(column) for column in (series.x, series.y, series.z) if column is not None]
    style: dict[str, Any] = {
        "linestyle": "" if series.kind == "points" else DASHES[look.dash],
        "linewidth": look.width * 0.7,
    }
    if series.kind in ("points", "both"):
        face = "none" if look.hollow else colour
        style |= {
            "marker": MARKS[look.mark],
            "markersize": look.size * 0.55,
            "markerfacecolor": face,
            "markeredgewidth": 0.8,
        }
    if series.kind == "steps":
        style["drawstyle"] = "steps-post"
    axes.plot(*at, color=colour, alpha=look.opacity, label=name, **style)
    pairs = zip("xyz", (series.x, series.y, series.z), (series.x_ends, series.y_ends, series.z_ends), strict=True)
    errors: dict[str, Any] = {
        f"{axis}err": _lengths(column, ends) for axis, column, ends in pairs if column is not None and ends
    }
    if errors:
        errors |= {"fmt": "none", "ecolor": colour, "elinewidth": 0.7, "alpha": 0.6 * look.opacity}
        axes.errorbar(*at, **errors)


def _limit(axes: Axes, chart: Chart) -> None:
    """The ends that an axis has to reach."""
    for axis, edges in ((chart.x, axes.set_xlim), (chart.y, axes.set_ylim)):
        if axis.low is not None or axis.high is not None:
            low, high = (axes.get_xlim if axis is chart.x else axes.get_ylim)()
            edges(min(low, low if axis.low is None else axis.low), max(high, high if axis.high is None else axis.high))
    if chart.x.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _parallel(chart: Chart) -> Figure:
    """Each axis is scaled to its own range; its ends are written at it."""
    figure = Figure(figsize=(PAGE, 3.2), layout="constrained")
    axes = figure.add_subplot()
    columns = [_scaled(one) for one in chart.dimensions]
    places = range(len(columns))
    for on_front in (False, True):
        look = Look(BLUE if on_front else GREY, opacity=0.8 if on_front else 0.3)
        lines = [
            line for line, chosen in zip(zip(*columns, strict=True), chart.chosen, strict=True) if chosen == on_front
        ]
        for number, line in enumerate(lines):
            name = ("front" if on_front else "not on the front") if not number else "_"
            axes.plot(places, line, color=LIGHT[look.colour], alpha=look.opacity, linewidth=0.9, label=name)
    for place, one in zip(places, chart.dimensions, strict=True):
        for figure_at, height in sorted(set(zip(one.values, columns[place], strict=True))):
            if one.names is not None or height in (0, 1):
                said = f"{figure_at:.3g}" if one.names is None else _plain(one.names[int(figure_at)])
                axes.annotate(said, (place, height), (2, 2), textcoords="offset points", fontsize=6)
    axes.set_xticks(list(places), [_plain(one.label) for one in chart.dimensions], rotation=20, ha="right")
    axes.set(yticks=[], ylim=(-0.1, 1.1))
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _scaled(one: Dimension) -> list[float]:
    low, high = min(one.values), max(one.values)
    return [(figure - low) / (high - low) if high > low else 0.5 for figure in one.values]


def _lengths(at: Sequence[Value], ends: Ends) -> list[list[float]]:
    """Down to the low end and up to the high one; 0 where one is not known."""
    return [
        [abs(float(one) - float(end)) if isinstance(one, int | float) and end is not None and end == end else 0.0
         for one, end in zip(at, side, strict=True)]
        for side in ends
    ]  # fmt: skip


def _shown(column: Sequence[Value]) -> list[str] | list[float]:
    if any(isinstance(one, str) for one in column):
        return [_plain(str(one)) for one in column]
    return _floats(column)


def _floats(column: Sequence[Value]) -> list[float]:
    return [float("nan") if one is None else float(one) for one in column]


def _plain(said: str) -> str:
    r"""A dollar opens no formula."""
    return said.replace("$", r"\$")
