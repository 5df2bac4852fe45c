"""A front before and after its confirmation: what the search said of each member, and what the test split says."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from snnsweep.result import PASS, Direction
from snnsweep.results.front import front
from snnsweep.results.ranking import hypervolume, is_share, kendall_tau, t_interval

Row = Mapping[Any, Any]
RANKED = "robust_accuracy"  # whose ranking before and after is compared
UNFINISHED = "unfinished"  # a member some of whose pairs have not ended
NOTHING: dict[str, Any] = {
    "front_after": None,
    "hypervolume": None,
    "kendall_tau": {"metric": RANKED, "tau": None, "n": 0},
}
VERDICTS = ("fail", "suspect", PASS)  # the gravest first


def compare(
    members: Sequence[Row],
    rows: Sequence[Row],
    pairs: Mapping[str, Sequence[str]],
    objectives: Mapping[str, Direction],
    reference: Mapping[str, float],
) -> dict[str, Any]:
    """What became of the members of a front.

    A member is `finished` when all its pairs are (`infeasible` where a figure of theirs is no number); else it is
    `failed`, `infeasible` or `unfinished`, the first of these that holds for one of its pairs, and has no place on
    the front after, nor in the ranking. Since a strong suite may leave nobody, the same is said a second time of all
    whose figures are there, `whatever_the_audit_says`.

    Args:
        members: rows of the sweep, judged on the validation split.
        rows: rows of pairs, judged on the test split.
        pairs: for each member's `trial_id` the `trial_id` of its pairs.
        reference: of the hypervolumes, by objective; what is not better than it adds nothing.

    Returns:
        `pairs` {asked, ended}, `members` (each with its `audit` {before, after}, and `before` and `after`: for every
        objective, `clean_accuracy` and `robust_accuracy` a `value`, its 95 % interval `low`, `high`, and `n` values),
        `front_before`, `front_after`, `reference`, `hypervolume` {before, after}, `kendall_tau` {metric, tau, n}, and
        `whatever_the_audit_says` {front_after, hypervolume, kendall_tau}; None where there is no figure, and for all
        that needs every pair while some have not ended.
    """
    known = {row["trial_id"]: row for row in rows}
    names = list(dict.fromkeys([*objectives, "clean_accuracy", RANKED]))
    judged = [_member(row, [known.get(pair) for pair in pairs[row["trial_id"]]], names) for row in members]
    before = [_values(one["before"], objectives) for one in judged]
    measured = [one for one in judged if one["measured"]]
    asked = [pair for row in members for pair in pairs[row["trial_id"]]]
    count = {"asked": len(asked), "ended": sum(pair in known for pair in asked)}
    whole = count["ended"] == count["asked"]
    believed, whatever = (
        _after([one for one in measured if one["status"] in among], objectives, reference) if whole else dict(NOTHING)
        for among in (("finished",), ("finished", "infeasible"))
    )
    for one in judged:
        one["on_front"] = one["trial_id"] in believed["front_after"] if whole else None
    volume = {"before": _volume(before, reference, objectives), "after": believed.pop("hypervolume")}
    return {
        "pairs": count,
        "members": judged,
        "front_before": [one["trial_id"] for one in judged],
        "reference": dict(reference),
        "hypervolume": volume,
        **believed,
        "whatever_the_audit_says": whatever,
    }


def _after(
    stay: Sequence[Mapping[str, Any]], objectives: Mapping[str, Direction], reference: Mapping[str, float]
) -> dict[str, Any]:
    """The front of these members, its hypervolume, and how their ranking changed."""
    points = {one["trial_id"]: _values(one["after"], objectives) for one in stay}
    table = pd.DataFrame([{"trial_id": name, "status": "finished", **point} for name, point in points.items()])
    kept = [str(name) for name in front(table, objectives)["trial_id"]] if len(table) else []
    ranked = [[float(one[when][RANKED]["value"]) for one in stay] for when in ("before", "after")]
    return {
        "front_after": kept,
        "hypervolume": _volume([points[name] for name in kept], reference, objectives),
        "kendall_tau": {"metric": RANKED, "tau": kendall_tau(*ranked), "n": len(stay)},
    }


def _member(row: Row, pairs: Sequence[Row | None], names: Sequence[str]) -> dict[str, Any]:
    ended = [pair for pair in pairs if pair is not None]
    statuses = [pair["status"] if pair is not None else UNFINISHED for pair in pairs]
    after = {name: _figure(ended, name) for name in names}
    status = next((bad for bad in ("failed", "infeasible", UNFINISHED) if bad in statuses), "finished")
    whole = all(figure["n"] == len(pairs) for figure in after.values())
    if status == "finished" and not whole:
        status = "infeasible"  # a figure that is no number
    return {
        "trial_id": row["trial_id"],
        "status": status,
        "measured": whole and UNFINISHED not in statuses and "failed" not in statuses,
        "pairs": {"asked": len(pairs), "finished": statuses.count("finished")},
        "audit": {"before": row.get("audit") or None, "after": _gravest(ended)},
        "before": {name: _figure([row], name) for name in names},
        "after": after,
        "causes": [f"{pair['trial_id']}: {pair['cause']}" for pair in ended if pair["cause"]],
        "warnings": [f"{pair['trial_id']}: {text}" for pair in ended for text in pair["warnings"]],
    }


def _gravest(rows: Sequence[Row]) -> str | None:
    found = {row.get("audit") for row in rows}
    return next((verdict for verdict in VERDICTS if verdict in found), None)


def _figure(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """The mean over rows; its interval is Student's over two or more, else the row's own, over samples.

    A share's interval ends at 0 and 1.
    """
    able = [row for row in rows if _finite(row.get(name))]
    if not able:
        return {"value": None, "low": None, "high": None, "n": 0}
    values = [float(row[name]) for row in able]
    ends: Sequence[float | None] = [_number(able[0].get(f"{name}/{side}")) for side in ("low", "high")]
    if len(values) > 1:
        low, high = t_interval(values)
        ends = (max(0.0, low), min(1.0, high)) if is_share(name) else (low, high)
    return {"value": float(np.mean(values)), "low": ends[0], "high": ends[1], "n": len(values)}


def _number(figure: Any) -> float | None:
    return float(figure) if _finite(figure) else None


def _finite(figure: Any) -> bool:
    return figure is not None and not pd.isna(figure) and math.isfinite(figure)


def _values(figures: Mapping[str, Mapping[str, Any]], objectives: Mapping[str, Direction]) -> dict[str, float]:
    return {name: float(figures[name]["value"]) for name in objectives}


def _volume(
    points: Sequence[Mapping[str, float]], reference: Mapping[str, float], objectives: Mapping[str, Direction]
) -> float:
    matrix = np.array([[point[name] for name in objectives] for point in points]).reshape(-1, len(objectives))
    return hypervolume(matrix, np.array([reference[name] for name in objectives]), list(objectives.values()))
