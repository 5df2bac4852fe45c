"""What the terminal shows of a front, and of mixes beside it."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from snnsweep.result import Direction
from snnsweep.results.front import dominates
from snnsweep.results.words import number, value, varied_keys
from snnsweep.terminal import heading, out, verdict, with_interval


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


def front_table(front: pd.DataFrame, results: pd.DataFrame, objectives: Mapping[str, Direction]) -> Table:
    """A row per member: its objectives with their 95 % intervals, and the config keys that differ over the sweep."""
    title = f"The front: {len(front)} of {len(results)} trials"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("trial", no_wrap=True)
    for name, way in objectives.items():
        table.add_column(heading(name) + (" ↑" if way == "maximize" else " ↓"), justify="right", overflow="fold")
    table.add_column("audit", overflow="fold")
    varied = varied_keys(results)
    for key in varied:
        table.add_column(heading(key), overflow="fold")
    for _, row in front.iterrows():
        figures = [with_interval(row, name, "\n") for name in objectives]
        table.add_row(row["trial_id"], *figures, verdict(row), *(value(key, row[key]) for key in varied))
    return table


def show_mixes(mixes: pd.DataFrame, front: pd.DataFrame, objectives: Mapping[str, Direction]) -> None:
    """Mixes of two trials, beside the front: a mix is no variant of the space and takes no place on it."""
    if mixes.empty:
        return
    table = Table(title="Mixes of two trials", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("standard", "robust", "weight"):
        table.add_column(name)
    for name, way in objectives.items():
        table.add_column(heading(name) + (" ↑" if way == "maximize" else " ↓"), justify="right", overflow="fold")
    table.add_column("audit", overflow="fold")
    table.add_column("against the front", overflow="fold")
    rows, members = mixes.to_dict("records"), front.to_dict("records")
    for row in rows:
        figures = [with_interval(row, name, "\n") for name in objectives]
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
