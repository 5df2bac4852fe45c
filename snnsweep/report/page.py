"""The report as one HTML page, which asks the network for nothing."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from snnsweep.report import palette
from snnsweep.report.charts import Section, table_of
from snnsweep.report.data import Swept, read
from snnsweep.report.interactive import figure
from snnsweep.report.saving import save
from snnsweep.report.sections import sections
from snnsweep.report.words import banners, findings, hovers

PAGE = Path("report") / "index.html"  # in a sweep's folder


def write(folder: Path) -> Path:
    """Writes the report of the sweep in that folder, and returns its path.

    Raises:
        UserError: there is no sweep, or a file of it cannot be read; nothing is written then.
        SnnSweepError: the page cannot be written.
    """
    swept = read(folder)
    return save(folder / PAGE, page(swept).encode("utf-8", "replace"))


def page(swept: Swept) -> str:
    """The report of a sweep as HTML."""
    facts = swept.facts
    about = {
        "started": facts.get("started", "unknown"),
        "ended": facts.get("ended", "not yet"),
        "status": facts["status"],
        "trials": f"{len(swept.results)} ended of {facts.get('trials', 'unknown')}",
    }
    return render(
        f"{swept.name}: {facts.get('question', '')}",
        about,
        findings(swept),
        banners(swept),
        sections(swept),
        hovers(swept),
    )


def render(
    title: str,
    about: dict[str, str],
    said: Sequence[str],
    warned: Sequence[str],
    parts: Sequence[Section],
    points: dict[str, list[str]],
) -> str:
    """A page of sections.

    Args:
        about: facts under the title, by name.
        said, warned: sentences of the head; `warned` are set apart.
        points: by trial, the lines that its points show.
    """
    charts = [chart for part in parts for chart in part.charts]
    drawn = {chart.name: figure(chart) for chart in charts}
    tables = {chart.name: table for chart in charts if (table := table_of(chart)) is not None}
    hover = {trial: "<br>".join(escape(line, quote=False) for line in lines) for trial, lines in points.items()}
    template = Environment(
        loader=PackageLoader("snnsweep.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html")
    return template.render(
        title=title, about=about, said=said, warned=warned, sections=parts, tables=tables, drawn=drawn,
        charts=embedded({"figures": drawn, "hover": hover, "palette": {"light": palette.LIGHT, "dark": palette.DARK}}),
        plotly=get_plotlyjs(), style=_text("page.css"), script=_text("page.js"),
        light=palette.LIGHT, dark=palette.DARK,
    )  # fmt: skip


def embedded(content: Any) -> str:
    """JSON that may stand in a script element: no text of it can end that."""
    said = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        said = said.replace(mark, f"\\u{ord(mark):04x}")
    return said


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
