"""A front before and after its confirmation: slopes with intervals, and what became of each member."""

from collections.abc import Mapping
from typing import Any

from snnsweep.report.charts import Axis, Chart, Series, Table
from snnsweep.report.data import MOST, Swept, spread
from snnsweep.report.palette import line_looks
from snnsweep.report.trials import axis_of
from snnsweep.results.words import number

WHEN = {"before": "search", "after": "confirmed"}


def coverage(swept: Swept) -> str:
    """How many members of today's front the confirmation judged, and who of those has left it since; "" without one."""
    if swept.confirmed is None:
        return ""
    judged = {one["trial_id"] for one in swept.confirmed["members"]}
    members = set(swept.front.get("trial_id", []))
    top = swept.confirmed.get("top", "front")
    asked = "" if top == "front" else f" (--top {top}: the best in {next(iter(swept.objectives))} alone)"
    said = f"{len(judged & members)} of the {len(members)} members of today's front were in the confirmation{asked}"
    left = sorted(judged - members)
    return said + (f"; {len(left)} that were are not on it any more: {', '.join(left)}" if left else "")


def fits(swept: Swept) -> bool:
    """Whether the confirmation judged today's front, all of it and nothing else; so where there is none."""
    report = swept.confirmed
    return report is None or {one["trial_id"] for one in report["members"]} == set(swept.front.get("trial_id", []))


def slope_charts(report: Mapping[str, Any]) -> list[Chart]:
    """For each objective the members' figures before and after; who has no figure after has a point alone."""
    drawn = spread(report["members"])
    charts = []
    for count, name in enumerate(report["objectives"], start=1):
        series = []
        for one, look in zip(drawn, line_looks(len(drawn)), strict=True):
            figures = [one[when][name] for when in WHEN]
            low, high = ([figure[end] for figure in figures] for end in ("low", "high"))
            heights = [figure["value"] for figure in figures]
            series.append(
                Series(one["trial_id"], list(WHEN.values()), heights, look, "both", y_ends=(low, high),
                       trials=[one["trial_id"]] * len(WHEN))
            )  # fmt: skip
        y = axis_of(name, report["objectives"])
        charts.append(Chart(f"confirmed-{count}", f"{name} before and after", series, Axis(""), y))
    return charts


def confirmed_table(report: Mapping[str, Any]) -> Table:
    """A row per member, with all that the confirmation says of it."""
    head = ["trial", "status", "pairs finished", "on the front after", "audit before", "audit after"]
    head += [f"{name} {said}" for name in report["objectives"] for said in WHEN.values()]
    rows = []
    for one in report["members"]:
        stays = {True: "yes", False: "no"}.get(one["on_front"], "unknown")
        pairs = f"{one['pairs']['finished']} of {one['pairs']['asked']}"
        verdicts = [one["audit"][when] or "none" for when in WHEN]
        figures = [_figure(one[when][name]) for name in report["objectives"] for when in WHEN]
        rows.append([one["trial_id"], one["status"], pairs, stays, *verdicts, *figures])
    return Table("The members before and after", head, rows, sorts=True)


def confirmed_words(report: Mapping[str, Any]) -> list[str]:
    """How it was judged, and what became of front, hypervolume and ranking."""
    samples, seeds = (", ".join(map(str, report[name])) for name in ("samples", "seeds"))
    trained = f"trained again with seed {seeds}" if seeds else "the stored models"
    said = [
        f"Before: the search's own figures. After: {trained}, on the {report['split']} split, under the suite "
        f"{report['suite']} with at most {samples} samples; intervals after: {report['interval']}. A member with a "
        "failed or infeasible pair leaves the front."
    ]
    if len(report["members"]) > MOST:
        said.append(f"Of {len(report['members'])} members {MOST} are drawn, evenly over the front; the table has all.")
    pairs = report["pairs"]
    if pairs["ended"] < pairs["asked"]:
        return [
            *said,
            f"{pairs['ended']} of {pairs['asked']} pairs have ended: of the front after, nothing is known yet.",
        ]
    before = number(report["hypervolume"]["before"])
    said.append(_judged("Front", report, before, report["hypervolume"]["after"]))
    whatever = report["whatever_the_audit_says"]
    if whatever["kendall_tau"]["n"] > report["kendall_tau"]["n"]:
        said.append(_judged("Whatever the audit says, front", whatever, before, whatever["hypervolume"]))
    reference = ", ".join(f"{name} {number(at)}" for name, at in report["reference"].items())
    return [*said, f"Hypervolumes are over {reference}."]


def _judged(what: str, judged: Mapping[str, Any], before: str, after: float | None) -> str:
    tau = judged["kendall_tau"]
    ranked = "too few or tied" if tau["tau"] is None else number(tau["tau"])
    return (
        f"{what} after: {', '.join(judged['front_after']) or 'nobody'}. Hypervolume {before} before, {number(after)} "
        f"after. Kendall's tau of the ranking by {tau['metric']}: {ranked} (n = {tau['n']})."
    )


def _figure(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return number(figure["value"])
    return f"{number(figure['value'])} [{figure['low']:.3f}, {figure['high']:.3f}]"
