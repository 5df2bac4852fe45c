"""What a picture shows, before it is drawn: by plotly on the page, by matplotlib on paper, the same numbers both "
"times."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from snnsweep.report.palette import Look

Value = float | str | None
Ends = tuple[Sequence[float | None], Sequence[float | None]]
Kind = Literal["points", "lines", "both", "steps", "bars"]


@dataclass(frozen=True)
class Series:
    """Points that look alike. A None among them parts a line.

    Attributes:
        name: in the legend; "" leaves it out there.
        x, y, z: of one length; z in a picture of three axes alone. Texts are categories.
        kind: `both` is a line with its points; `steps` holds each y until the next x; `bars` lie, y their categories.
        x_ends, y_ends, z_ends: low and high ends of 95 % intervals.
        trials: whose point each is.
    """

    name: str
    x: Sequence[Value]
    y: Sequence[Value]
    look: Look
    kind: Kind = "points"
    z: Sequence[Value] | None = None
    x_ends: Ends | None = None
    y_ends: Ends | None = None
    z_ends: Ends | None = None
    trials: Sequence[str] | None = None


@dataclass(frozen=True)
class Axis:
    """Attributes:
    label: with the way that is better, where there is one.
    log, whole: a logarithmic one; one whose marks are whole numbers.
    low, high: where it ends; None to fit the points.
    """

    label: str
    log: bool = False
    whole: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Dimension:
    """One axis of parallel coordinates: numbers, or the places of `names`."""

    label: str
    values: Sequence[float]
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Chart:
    """One picture: two axes, three with a `z`, or parallel ones.

    Attributes:
        name: of its file, and its place on the page.
        title: says what is drawn.
        dimensions, chosen: of parallel coordinates, and which of the lines stand out.
        note: what has to be known to read it.
    """

    name: str
    title: str
    series: Sequence[Series] = ()
    x: Axis = field(default_factory=lambda: Axis(""))
    y: Axis = field(default_factory=lambda: Axis(""))
    z: Axis | None = None
    dimensions: Sequence[Dimension] = ()
    chosen: Sequence[bool] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Attributes:
    caption: says what it shows.
    sorts: whether a reader may sort it by its columns.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    sorts: bool = False


@dataclass(frozen=True)
class Section:
    """Attributes:
    name: its place on the page.
    about: what it shows and what it does not, a paragraph each; never empty.
    copies: texts to be taken along, each with its heading.
    """

    name: str
    title: str
    about: Sequence[str]
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    copies: Sequence[tuple[str, str]] = ()


def table_of(chart: Chart, most: int = 200) -> Table | None:
    """A chart's figures for who cannot see it; None where there are too many to be read."""
    x, y = chart.x.label or "value", chart.y.label or "value"
    head = ("series", "trial", x, f"95 % interval of {x}", y, f"95 % interval of {y}")
    rows = [
        (series.name, series.trials[place] if series.trials else "", _text(at[0]), _range(series.x_ends, place),
         _text(at[1]), _range(series.y_ends, place))
        for series in chart.series
        if series.name
        for place, at in enumerate(zip(series.x, series.y, strict=True))
        if None not in at
    ]  # fmt: skip
    if chart.z is not None or chart.dimensions or not rows or len(rows) > most:
        return None
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return Table(
        f"{chart.title}: the figures", [head[one] for one in kept], [[row[one] for one in kept] for row in rows]
    )


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _range(ends: Ends | None, place: int) -> str:
    if ends is None:
        return ""
    low, high = ends[0][place], ends[1][place]
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"
