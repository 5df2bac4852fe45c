"""Robust accuracy over eps, and where in the network the gradient is sparse, of the members of the front."""

import re
from collections.abc import Mapping
from typing import Any

from snnsweep.report.charts import Axis, Chart, Series
from snnsweep.report.data import Row, Swept
from snnsweep.report.palette import line_looks
from snnsweep.result import PER_EPS, PER_LAYER, PER_LAYER_HOYER
from snnsweep.results.words import missing

KINDS = ("conv", "norm", "neuron", "pool")  # in the order in which a block has them
LAST = 10**6  # of a part without a number, as a block's shortcut


def eps_chart(swept: Swept) -> Chart | None:
    """What stands under the audit's PGD at each eps of its grid; None where no member has more than one."""
    curves = {row["trial_id"]: found for row in swept.members if len(found := eps_curve(row)) > 1}
    if not curves:
        return None
    rows = {row["trial_id"]: row for row in swept.members}
    series = []
    for trial, look in zip(curves, line_looks(len(curves)), strict=True):
        points = curves[trial]
        ends = [[rows[trial].get(f"{column}/{side}") for column in points.values()] for side in ("low", "high")]
        accuracies = [float(rows[trial][column]) for column in points.values()]
        series.append(
            Series(
                trial, list(points), accuracies, look, "both", y_ends=(ends[0], ends[1]), trials=[trial] * len(points)
            )
        )
    threats = {f"{rows[trial]['threat.norm']}, {rows[trial]['threat.space']}" for trial in curves}
    counts = (rows[one].get(f"{column}/n") for one, found in curves.items() for column in found.values())
    sizes = {int(n) for n in counts if n is not None and not missing(n)}
    counted = f" (n = {' or '.join(map(str, sorted(sizes)))})" if sizes else ""
    x = Axis(f"eps ({'; '.join(sorted(threats))})", low=0)
    return Chart(
        "robust-over-eps", "Robust accuracy over eps", series, x, Axis(f"share that stands{counted}", low=0, high=1)
    )


def eps_curve(row: Row) -> dict[float, str]:
    """The columns of a row's accuracies over eps, by eps."""
    found = {}
    for column in row:
        multiple = str(column).removeprefix(PER_EPS)
        if multiple != column and re.fullmatch(r"[\d.]+", multiple) and not missing(row[column]):
            found[float(multiple) * float(row["threat.eps"])] = str(column)
    return dict(sorted(found.items()))


def layer_charts(swept: Swept) -> list[Chart]:
    """The exact-zero share and the Hoyer sparsity of the gradient at each layer's input."""
    wanted = {
        "zeros": (PER_LAYER, "Exact-zero share of the gradient, layer by layer"),
        "hoyer": (PER_LAYER_HOYER, "Hoyer sparsity of the gradient, layer by layer"),
    }
    charts = []
    for name, (prefix, title) in wanted.items():
        profiles = [(row["trial_id"], found) for row in swept.members if (found := _profile(row, prefix))]
        layers = sorted({layer for _, found in profiles for layer in found}, key=depth_of)
        series = [
            # Every layer has a place in every line: a layer that a member has not leaves a gap.
            Series(trial, layers, [found.get(layer) for layer in layers], look, "both", trials=[trial] * len(layers))
            for (trial, found), look in zip(profiles, line_looks(len(profiles)), strict=True)
        ]
        if series:
            y = Axis("share of zeros" if name == "zeros" else "Hoyer sparsity", low=0, high=1)
            charts.append(Chart(f"layers-{name}", title, series, Axis("layer, by name from the input on"), y))
    return charts


def _profile(row: Mapping[Any, Any], prefix: str) -> dict[str, float]:
    return {
        str(column).removeprefix(prefix): float(figure)
        for column, figure in row.items()
        if str(column).startswith(prefix) and not missing(figure)
    }


def depth_of(layer: str) -> tuple[Any, ...]:
    """Sorts layers as a network has them, as far as their names tell: stem, stages and blocks by number, head."""
    first = layer.partition(".")[0]
    place = 0 if first == "stem" else 2 if first in ("pool", "head") else 1
    parts: list[tuple[int, int, str]] = []
    for part in layer.split("."):
        word, count = re.fullmatch(r"(.*?)(\d*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        kind = KINDS.index(word) if word in KINDS else len(KINDS)
        parts.append((int(count) if count else LAST, kind, word))
    return place, first == "head", parts
