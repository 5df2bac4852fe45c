"""What the terminal shows: the two consoles, how figures are written, and small tables."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from snnsweep.result import FAMILIES, PER_ATTACK, PER_CHECK, Result
from snnsweep.results.words import number

PLAIN_WIDTH = 2000  # of a pipe or a log file, where rich would fold at 80
out = Console(highlight=False, markup=False, force_jupyter=False)
err = Console(stderr=True, highlight=False, markup=False, force_jupyter=False)
for console in (out, err):
    if not console.file.isatty():  # FORCE_COLOR asks for colours, not for a width
        console.width = PLAIN_WIDTH
STYLE = {"finished": "green", "infeasible": "yellow", "stopped": "yellow", "failed": "red"}


def print_json(value: Any) -> None:
    """JSON on stdout, for other programs: NaN and the infinities, which it does not know, become null."""
    print(json.dumps(_plain(value), indent=1, allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_table(result: Result) -> Table:
    """One result: the audit's verdict, every metric but the per-layer ones, and the audit's checks."""
    table = Table(show_header=False)
    if result.verdict:
        table.add_row("audit", result.verdict)
    per_layer = tuple(prefix for prefix in FAMILIES if prefix != PER_ATTACK)
    for name in result.metrics:
        if not name.startswith(per_layer) and not name.endswith(("/low", "/high", "/n")):
            table.add_row(name, with_interval(result.metrics, name), _count(result.metrics, name))
    for check in result.checks:
        figures = "" if check.value is None else f"{number(check.value)}  (threshold {number(check.threshold)})"
        table.add_row(f"{PER_CHECK}{check.name}", figures, check.verdict)
    return table


def epoch_line(metrics: Mapping[str, float]) -> None:
    """One trained epoch, to stderr."""
    err.print("  ".join(f"{name} {number(figure)}" for name, figure in metrics.items()), style="dim")


def parts_table(parts: Mapping[str, Mapping[str, str]]) -> Table:
    table = Table("kind", "name", "what it is")
    for kind, named in parts.items():
        for name, about in named.items():
            table.add_row(kind, name, about)
        table.add_section()
    return table


def findings_table(findings: Iterable[Any]) -> Table:
    """The doctor's findings; what has to be mended stands out."""
    table = Table("", "what", "found", "mend it with")
    for finding in findings:
        mark = Text("-", "dim") if finding.absent else Text("ok", "green")
        mark = Text("!", "bold red") if finding.mend else mark
        table.add_row(mark, Text(finding.what), Text(finding.found), Text(finding.mend))
    return table


def verdict(row: Mapping[Any, Any] | pd.Series) -> str:
    """The audit's, of a row; "-" where it has none."""
    found = row.get("audit")
    return found if isinstance(found, str) and found else "-"


def duration(seconds: float | None) -> str:
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def bullet_list(lines: Iterable[str]) -> str:
    return "\n".join(f"  - {line}" for line in lines)


def heading(name: str) -> str:
    """A metric or key over several short lines, so that columns stay narrow."""
    return name.replace("_", "_\n").replace(".", ".\n").replace("/", "/\n")


def with_interval(row: Mapping[Any, Any] | pd.Series, name: str, between: str = "  ") -> str:
    low, high = row.get(f"{name}/low"), row.get(f"{name}/high")
    shown = number(row.get(name))
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return shown
    return f"{shown}{between}{_short(low)}-{_short(high)}"


def _short(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def _count(metrics: Mapping[str, float], name: str) -> str:
    count = metrics.get(f"{name}/n")
    return "" if count is None else f"n={count:.0f}"
