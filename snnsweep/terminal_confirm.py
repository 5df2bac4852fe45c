"""What the terminal shows of a confirmation."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snnsweep.results.words import number
from snnsweep.terminal import STYLE, out

Figure = Mapping[str, Any]


def show_confirmation(report: Mapping[str, Any]) -> None:
    """The members before and after, then what became of the front and the ranking."""
    if report["smoke"]:
        out.print("smoke run: the figures mean nothing", style="bold yellow")
    out.print(confirmation_table(report))
    for one in report["members"]:
        for text in one["causes"]:
            out.print(f"  {text}", style="red", soft_wrap=True)
        for text in one["warnings"]:
            out.print(f"  {text}", style="yellow", soft_wrap=True)
    _show_front(report)
    if report["warning"]:
        out.print(report["warning"], style="yellow", soft_wrap=True)
    out.print(_footnote(report), style="dim", soft_wrap=True)


def _show_front(report: Mapping[str, Any]) -> None:
    """What became of the front, once every pair has ended."""
    pairs, whatever = report["pairs"], report["whatever_the_audit_says"]
    if pairs["ended"] < pairs["asked"]:
        text = f"{pairs['ended']} of {pairs['asked']} pairs have ended; the same command goes on with the others"
        out.print(text, style="yellow")
        return
    members = "front before  " if report["top"] == "front" else "taken from it "
    out.print(f"{members} {' '.join(report['front_before'])}", soft_wrap=True)
    _show_after(report, report["hypervolume"]["before"], report["hypervolume"]["after"])
    if whatever["kendall_tau"]["n"] > report["kendall_tau"]["n"]:
        out.print("whatever the audit says:", style="yellow")
        _show_after(whatever, report["hypervolume"]["before"], whatever["hypervolume"])
    reference = ", ".join(f"{name} {number(value)}" for name, value in report["reference"].items())
    out.print(f"hypervolumes over {reference}; what is no better adds nothing", soft_wrap=True)


def _show_after(judged: Mapping[str, Any], before: float, after: float) -> None:
    tau = judged["kendall_tau"]
    out.print(f"front after    {' '.join(judged['front_after']) or 'nobody'}", soft_wrap=True)
    out.print(f"hypervolume    {number(before)} -> {number(after)}", soft_wrap=True)
    out.print(
        f"Kendall's tau  {number(tau['tau'])}  (of {tau['metric']}, before against after, n = {tau['n']})",
        soft_wrap=True,
    )


def confirmation_table(report: Mapping[str, Any]) -> Table:
    """A row per member: for each objective its figure before and after, each over its 95 % interval."""
    title = f"Confirmed: {report['sweep']}, suite {report['suite']}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("trial", "status", "on the\nfront"):
        table.add_column(name, no_wrap=True)
    table.add_column("audit\nbefore ->\nafter", overflow="fold")
    for name, way in report["objectives"].items():
        shown = name.replace("_", "_\n").replace("/", "/\n") + (" ↑" if way == "maximize" else " ↓")
        table.add_column(f"{shown}\nbefore", justify="right", overflow="fold")
        table.add_column(f"{shown}\nafter", justify="right", overflow="fold", style="bold")
    for one in report["members"]:
        cells = [_cell(one[when][name]) for name in report["objectives"] for when in ("before", "after")]
        pairs = one["pairs"]
        count = f" {pairs['finished']}/{pairs['asked']}"
        status = Text(one["status"], STYLE.get(one["status"], "yellow")).append(count if pairs["asked"] > 1 else "")
        stays = {True: "yes", False: "no", None: "-"}[one["on_front"]]
        verdicts = " ->\n".join(one["audit"][when] or "-" for when in ("before", "after"))
        table.add_row(one["trial_id"], status, stays, verdicts, *cells)
    return table


def _cell(figure: Figure) -> str:
    if figure["low"] is None or figure["high"] is None:
        return number(figure["value"])
    ends = "-".join(f"{figure[end]:.3f}".removeprefix("0") for end in ("low", "high"))
    return f"{number(figure['value'])}\n{ends}"


def _footnote(report: Mapping[str, Any]) -> str:
    samples = ", ".join(map(str, report["samples"]))
    seeds = ", ".join(map(str, report["seeds"]))
    after = f"trained again with seeds {seeds}" if seeds else "the stored models"
    return (
        "Before: the search's figures, validation split, one seed, 95 % intervals over samples "
        "(Wilson for accuracies). "
        f"After: {after}, test split, suite {report['suite']} on {samples} samples at most; intervals: "
        f"{report['interval']}. A member with a failed or infeasible pair leaves the front. ↑ more is better."
    )
