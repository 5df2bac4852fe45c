"""What the terminal shows: a sweep's progress, its front, one result."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snnsweep.config import DEFAULTS
from snnsweep.result import FAMILIES, PER_ATTACK, PER_CHECK, Direction, Result
from snnsweep.results.front import dominates

PLAIN_WIDTH = 160  # of a pipe or a log file, where rich would fold at 80
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)
for console in (out, err):
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
STYLE = {"finished": "green", "infeasible": "yellow", "stopped": "yellow", "failed": "red"}


class ProgressView:
    """Shows a `Progress`: a live panel on a terminal, else a line for each ended trial. Writes to stderr."""

    def __init__(self) -> None:
        self._live = Live(console=err, auto_refresh=False, transient=True)
        self._told = 0

    def __enter__(self) -> "ProgressView":
        if err.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, progress: Any) -> None:
        """Takes each change of a sweep's `Progress`."""
        if progress.done > self._told and progress.last:
            self._told = progress.done
            err.print(ended_line(progress), soft_wrap=True)
        if err.is_terminal:
            self._live.update(panel(progress), refresh=True)


def ended_line(progress: Any) -> Text:
    trial_id, result = progress.last
    line = Text(f"{progress.done}/{progress.total} {trial_id} ")
    line.append(result.status, STYLE[result.status])
    figures = [f"{name} {number(result.metrics[name])}" for name in progress.objectives if name in result.metrics]
    line.append("  " + "  ".join(figures) if figures else "")
    line.append(f"  audit {result.verdict}" if result.verdict else "")
    line.append(f"  {result.cause}" if result.cause else "")
    return line.append(f"  left {duration(progress.left_s)}", "dim")


def panel(progress: Any) -> RenderableType:
    counts = Text(f"{progress.done}/{progress.total} trials  running {len(progress.running)}")
    for status, count in progress.ended.items():
        counts.append(f"  {status} ").append(str(count), STYLE[status])
    counts.append(f"  front {progress.front_size}  left {duration(progress.left_s)}")
    running = "  ".join(f"{name} epoch {epoch}" for name, epoch in progress.running.items())
    best = "  ".join(f"{name} {number(value)} ({whose})" for name, (value, whose) in progress.best.items())
    bar = Table.grid()  # a line of its own
    bar.add_row(ProgressBar(total=progress.total, completed=progress.done, width=60))
    return Group(bar, counts, Text(running, "dim"), Text(f"best: {best}" if best else "", "bold"))


def front_table(front: pd.DataFrame, results: pd.DataFrame, objectives: Mapping[str, Direction]) -> Table:
    """A row per member: its objectives with their 95 % intervals, and the config keys that differ over the sweep."""
    title = f"The front: {len(front)} of {len(results)} trials"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("trial", no_wrap=True)
    for name, way in objectives.items():
        table.add_column(_heading(name) + (" ↑" if way == "maximize" else " ↓"), justify="right", overflow="fold")
    table.add_column("audit", overflow="fold")
    varied = varied_keys(results)
    for key in varied:
        table.add_column(_heading(key), overflow="fold")
    for _, row in front.iterrows():
        figures = [_with_interval(row, name, "\n") for name in objectives]
        table.add_row(row["trial_id"], *figures, verdict(row), *(value(key, row[key]) for key in varied))
    return table


def varied_keys(results: pd.DataFrame) -> list[str]:
    """The config keys that take more than one value."""
    return [key for key in DEFAULTS if key in results and results[key].map(repr).nunique() > 1]


def result_table(result: Result) -> Table:
    """One result: the audit's verdict, every metric but the per-layer ones, and the audit's checks."""
    table = Table(show_header=False)
    if result.verdict:
        table.add_row("audit", result.verdict)
    per_layer = tuple(prefix for prefix in FAMILIES if prefix != PER_ATTACK)
    for name in result.metrics:
        if not name.startswith(per_layer) and not name.endswith(("/low", "/high", "/n")):
            table.add_row(name, _with_interval(result.metrics, name), _count(result.metrics, name))
    for check in result.checks:
        figures = "" if check.value is None else f"{number(check.value)}  (threshold {number(check.threshold)})"
        table.add_row(f"{PER_CHECK}{check.name}", figures, check.verdict)
    return table


def epoch_line(metrics: Mapping[str, float]) -> None:
    """One trained epoch, to stderr."""
    err.print("  ".join(f"{name} {number(figure)}" for name, figure in metrics.items()), style="dim")


def show_front(facts: Mapping[str, Any], results: pd.DataFrame, front: pd.DataFrame) -> None:
    """The front as a table, with what its figures are and are not."""
    if facts["smoke"]:
        out.print("smoke run: the figures mean nothing", style="bold yellow")
    out.print(f"{facts['name']}: {facts['question']}", style="bold", soft_wrap=True)
    counts = results["status"].value_counts() if len(results) else pd.Series(dtype=int)
    out.print("  ".join(f"{status} {count}" for status, count in counts.items()) + f"  (sweep {facts['status']})")
    if front.empty:
        out.print("no trial is on the front: none has finished")
        return
    out.print(front_table(front, results, facts["objectives"]))
    for row in front.to_dict("records"):
        for warning in row["warnings"]:
            out.print(f"  {row['trial_id']}: {warning}", style="yellow", soft_wrap=True)
    suites = ", ".join(sorted(front["attack.suite"].unique()))
    out.print(
        "Validation split, one seed; below a figure its 95 % interval over samples. ↑ more is better. "
        f"Robustness is against the suite {suites}, no stronger attack: the figures of a search are optimistic.",
        style="dim",
        soft_wrap=True,
    )


def show_mixes(mixes: pd.DataFrame, front: pd.DataFrame, objectives: Mapping[str, Direction]) -> None:
    """Mixes of two trials, beside the front: a mix is no variant of the space and takes no place on it."""
    if mixes.empty:
        return
    table = Table(title="Mixes of two trials", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("standard", "robust", "weight"):
        table.add_column(name)
    for name, way in objectives.items():
        table.add_column(_heading(name) + (" ↑" if way == "maximize" else " ↓"), justify="right", overflow="fold")
    table.add_column("audit", overflow="fold")
    table.add_column("against the front", overflow="fold")
    rows, members = mixes.to_dict("records"), front.to_dict("records")
    for row in rows:
        figures = [_with_interval(row, name, "\n") for name in objectives]
        pair = (row["standard"], row["robust"], number(row["weight"]))
        table.add_row(*pair, *figures, verdict(row), _standing(row, members, objectives))
    out.print(table)
    for row in rows:
        for text in (*row["warnings"], *([row["cause"]] if row["cause"] else [])):
            out.print(f"  {row['trial_id']}: {text}", style="yellow", soft_wrap=True)


def _standing(row: Mapping[Any, Any], front: Iterable[Mapping[Any, Any]], objectives: Mapping[str, Direction]) -> str:
    """Which members of the front beat a mix, or else which it beats."""
    if row["status"] != "finished":
        return str(row["status"])
    if winners := [other["trial_id"] for other in front if dominates(other, row, objectives)]:
        return f"beaten by {', '.join(winners)}"
    losers = [other["trial_id"] for other in front if dominates(row, other, objectives)]
    return f"beats {', '.join(losers)}" if losers else "beaten by none"


def cost_table(report: Mapping[str, Any]) -> Group:
    """What `check` found: sampled variants with their cost, and the sweep's."""
    variants = pd.DataFrame(report["variants"])
    table = Table()
    varied = varied_keys(variants)
    for name in (*varied, "parameters", "train_s", "attack_s"):
        table.add_column(_heading(name), justify="right", overflow="fold")
    for row in report["variants"]:
        cost = [f"{row['parameters']:,}", f"{row['train_s']:.0f}", f"{row['attack_s']:.0f}"]
        table.add_row(*(value(key, row[key]) for key in varied), *cost)
    hours = report["worker_hours"]
    spread = f"{hours['low']:.2g}-{hours['high']:.2g}"
    total = f"{report['trials']} trials: {hours['median']:.2g} hours of one worker ({spread})"
    head = (Text(report["question"], "bold"), f"objectives: {', '.join(report['objectives'])}")
    return Group(*head, table, _memory_line(report["memory"]), total)


def _memory_line(memory: Mapping[str, Any]) -> str:
    train, attack = (memory[name] for name in ("train_bytes", "attack_bytes"))
    if train is None or attack is None:
        return "memory of a trial: not measured, which on a CPU needs Linux"
    size, images = memory["variant"]["data.batch_size"], memory["images"]
    how = f"scaled up from {images} images" if images < size else "measured"
    figures = f"{train / 2**20:,.0f} MiB in a training step, {attack / 2**20:,.0f} MiB in the attacks and measurements"
    return f"memory of the largest variant's trial, {how}: {figures}, beside Python's own"


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
        mark = Text("!", "bold red") if finding.mend else Text("ok", "green")
        table.add_row(mark, Text(finding.what), Text(finding.found), Text(finding.mend))
    return table


def verdict(row: Mapping[Any, Any] | pd.Series) -> str:
    """The audit's, of a row; "-" where it has none."""
    found = row.get("audit")
    return found if isinstance(found, str) and found else "-"


def number(figure: Any) -> str:
    """Four significant digits, enough to tell 0.8125 from 0.8126 and short enough for a table."""
    return "-" if figure is None or (isinstance(figure, float) and math.isnan(figure)) else f"{float(figure):.4g}"


def value(key: str, given: Any) -> str:
    """A config value as people write it: eps as a fraction of 255 where it is one."""
    if key == "threat.eps" and given is not None:
        share = Fraction(float(given) * 255).limit_denominator(100)
        if abs(float(share) / 255 - given) < 1e-9 and share.denominator == 1:
            return f"{share}/255"
    return number(given) if isinstance(given, float) else str(given)


def duration(seconds: float | None) -> str:
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def bullet_list(lines: Iterable[str]) -> str:
    return "\n".join(f"  - {line}" for line in lines)


def _heading(name: str) -> str:
    """A metric or key over several short lines, so that columns stay narrow."""
    return name.replace("_", "_\n").replace(".", ".\n").replace("/", "/\n")


def _with_interval(row: Mapping[Any, Any] | pd.Series, name: str, between: str = "  ") -> str:
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
