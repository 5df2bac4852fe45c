"""What the report says in sentences: what was found, how sure that is, and what went wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import isfinite
from textwrap import wrap
from typing import Any

import pandas as pd

from snnsweep.report.charts import Table
from snnsweep.report.confirmed import coverage, fits
from snnsweep.report.data import Row, Swept
from snnsweep.report.judged import mixed
from snnsweep.result import PASS
from snnsweep.results.front import numbers
from snnsweep.results.words import missing, number, value, with_interval

PLENTY = 20  # trials that a table names in one cell, at most
NARROW = 40  # characters in a line of what a point shows, which a panel would cut off


def findings(swept: Swept) -> list[str]:
    """Two or three sentences: the front, the best in each objective, how sure."""
    counts, total = swept.counts, len(swept.results)
    if not total:
        return ["No trial has ended, so nothing is known yet."]
    ended = ", ".join(f"{count} {status}" for status, count in counts.items())
    trials = "1 trial has" if total == 1 else f"{total} trials have"
    if swept.front.empty:
        return [
            f"{trials} ended ({ended}); none is on the front, since none finished with a figure for every objective."
        ]
    where = "1 is" if len(swept.front) == 1 else f"{len(swept.front)} are"
    confirmed = [_confirmed(swept.confirmed)] if swept.confirmed else []
    return [f"{trials} ended ({ended}); {where} on the front.", _best(swept), _how_sure(swept), *confirmed]


def _confirmed(report: Mapping[str, Any]) -> str:
    """What became of the front on the test split, in a sentence."""
    if report["front_after"] is None:
        return "A confirmation of the front on the test split has begun; its pairs have not all ended."
    stay, members = len(report["front_after"]), len(report["members"])
    return (
        f"Judged again on the {report['split']} split under the suite {report['suite']}, {stay} of {members} members "
        "that were confirmed are still on their front; what they lost is below."
    )


def _best(swept: Swept) -> str:
    parts = []
    for name, way in swept.objectives.items():
        figures = numbers(swept.finished, name)
        row = swept.finished.iloc[int(figures.argmax() if way == "maximize" else figures.argmin())].to_dict()
        verdict = row.get("audit") or "none"
        parts.append(f"{name} {with_interval(row, name)} ({row['trial_id']}, audit: {verdict})")
    return f"Best figures, each of one trial: {'; '.join(parts)}."


def _how_sure(swept: Swept) -> str:
    suites = ", ".join(sorted(map(str, swept.front["attack.suite"].unique())))
    sizes = sorted({int(n) for n in swept.front.get("robust_accuracy/n", pd.Series(dtype=float)).dropna()})
    attacked = f" on {' or '.join(map(str, sizes))} samples" if sizes else ""
    return (
        "These are figures of the search: validation split, one seed a trial, attacked by the suite "
        f"{suites}{attacked}; brackets are 95 % intervals over samples, not over seeds. The best of many trials is "
        "chosen in part by luck, and no attack proves robustness, so that these figures are optimistic."
    )


def banners(swept: Swept) -> list[str]:
    """What a reader must not miss: each as one sentence."""
    facts, said = swept.facts, []
    if facts["smoke"]:
        said.append("Smoke run: the trials were tiny, and the figures mean nothing.")
    if facts["status"] != "finished":
        planned = f" of {facts['trials']} planned" if facts.get("trials") else ""
        said.append(
            f"This sweep is not finished (status {facts['status']}): {len(swept.results)}{planned} trials have ended."
        )
    if not swept.front.empty:
        verdicts = Counter(str(one or "") for one in swept.front.get("audit", pd.Series("", index=swept.front.index)))
        trouble = {(one or "no audit"): count for one, count in verdicts.items() if one != PASS}
        if trouble:
            listed = ", ".join(f"{count} {name}" for name, count in sorted(trouble.items()))
            said.append(
                f"Audit: of {len(swept.front)} trials on the front {listed}. The robustness of such a trial may be "
                "the attack's failure and not the network's strength."
            )
    if swept.counts.get("infeasible"):
        said.append(
            f"{swept.counts['infeasible']} trials are infeasible: their figures cannot be believed, and none is on "
            "the front."
        )
    said += mixed(swept)
    if not fits(swept):
        said.append(f"The confirmation is not one of the whole front as it is now: {coverage(swept)}.")
    spaces = swept.results["space_sha256"].nunique() if "space_sha256" in swept.results else 1
    if spaces > 1:
        said.append(f"The trials ran with {spaces} texts of the space: it was changed while the sweep was resumed.")
    return said


def front_table(swept: Swept) -> Table:
    """A row per member of the front."""
    head = ["trial", *swept.objectives, "audit", *swept.varied, "warnings"]
    return Table("The trials on the front", head, [_member(swept, row) for row in swept.front.to_dict("records")], True)


def _member(swept: Swept, row: Row) -> list[str]:
    figures = [with_interval(row, name) for name in swept.objectives]
    chosen = [value(key, row[key]) for key in swept.varied]
    return [row["trial_id"], *figures, row.get("audit") or "none", *chosen, " | ".join(row["warnings"]) or "none"]


def audit_table(swept: Swept) -> Table | None:
    """What the audit's checks found of members, but for those that passed; None where all passed."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in swept.front.to_dict("records"):
        checks = row.get("audit_checks")
        for check in [] if checks is None else checks:
            name, _, said = str(check).partition(": ")
            if not said.startswith(PASS):
                found.setdefault((name, said), []).append(row["trial_id"])
    rows = [[name, said, ", ".join(trials)] for (name, said), trials in sorted(found.items())]
    caption = "Checks of the audit that found a sign, or were not run"
    return Table(caption, ["check", "what it says", "trials"], rows) if rows else None


def ends_table(swept: Swept) -> Table | None:
    """Trials that the front is not chosen from, by the first line of their cause; None where there are none."""
    grouped: dict[tuple[str, str], list[str]] = {}
    able = set(swept.finished.get("trial_id", []))
    for row in swept.results.to_dict("records"):
        if row["trial_id"] not in able:
            first = str(row.get("cause") or _lacks(swept, row)).strip().partition("\n")[0]
            grouped.setdefault((row["status"], first), []).append(row["trial_id"])
    rows = [
        [status, cause, str(len(trials)), ", ".join(trials[:PLENTY]) + (", ..." if len(trials) > PLENTY else "")]
        for (status, cause), trials in sorted(grouped.items(), key=lambda pair: -len(pair[1]))
    ]
    return (
        Table("Trials without a place, by cause", ["status", "first line of the cause", "trials", "which"], rows)
        if rows
        else None
    )


def _lacks(swept: Swept, row: Row) -> str:
    if row["status"] != "finished":
        return "no cause was recorded"
    lacking = [name for name in swept.objectives if missing(row.get(name)) or not isfinite(row[name])]
    return f"finished without a figure for {', '.join(lacking)}"


def mixes_table(swept: Swept) -> Table | None:
    """The mixes of two trials; None where there are none."""
    if swept.mixes.empty:
        return None
    rows = [
        [row["trial_id"], str(row["standard"]), str(row["robust"]), number(row["weight"]), row["status"],
         *(with_interval(row, name) for name in swept.objectives), row.get("audit") or "none",
         " | ".join(row["warnings"]) or "none"]
        for row in swept.mixes.to_dict("records")
    ]  # fmt: skip
    head = ["mix", "standard", "robust", "weight of the robust", "status", *swept.objectives, "audit", "warnings"]
    return Table("Mixes of two trials", head, rows)


def hovers(swept: Swept) -> dict[str, list[str]]:
    """By trial the lines that a point shows: status, varied config, objectives with intervals, audit, warnings."""
    return {
        row["trial_id"]: [part for line in _hover(swept, row) for part in wrap(line, NARROW, subsequent_indent="  ")]
        for row in swept.results.to_dict("records")
    }


def _hover(swept: Swept, row: Row) -> Iterator[str]:
    yield f"{row['trial_id']} ({row['status']})"
    for name in swept.objectives:
        yield f"{name} {with_interval(row, name)}"
    yield f"audit: {row.get('audit') or 'none'}"
    for key in swept.varied:
        yield f"{key} = {value(key, row[key])}"
    warnings = list(row["warnings"])
    for warning in warnings[:3]:
        yield f"! {warning if len(warning) < 120 else warning[:117] + '...'}"
    if len(warnings) > 3:
        yield f"! and {len(warnings) - 3} more"
