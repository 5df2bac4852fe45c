"""The rows, MLflow and Optuna's study say the same of a sweep; a row comes first, so that it decides after a crash."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from snnsweep.config import DEFAULTS
from snnsweep.result import ON_THE_WAY, Direction, Status
from snnsweep.sweep.checkpoints import trial_id
from snnsweep.sweep.search import Teller
from snnsweep.tracking.spool import Spool

INTERRUPTED, OUT_OF_TIME, BROKE = "interrupted", "the time budget ended", "the sweep broke"
GIVEN_UP = "its machines failed"  # as often as a trial is tried
OPEN_ENDED = (INTERRUPTED, OUT_OF_TIME, BROKE, GIVEN_UP)  # a resumed sweep goes on with a trial stopped for these


def has_ended(row: Mapping[Any, Any]) -> bool:
    """Whether that is the trial's own end, and not the sweep's."""
    return row["status"] != "stopped" or row["cause"] not in OPEN_ENDED


def told(
    row: Mapping[Any, Any], objectives: Mapping[str, Direction]
) -> tuple[Status, dict[str, Any], str, float | None]:
    """What Optuna is told of a row: status, values, cause and, where a rung stopped it, the share not trained."""
    if row["status"] != "stopped":
        return row["status"], {name: row.get(name) for name in objectives}, row["cause"], None
    left = 1 - row["epochs"] / row["train.epochs"]
    return "stopped", {name: row.get(ON_THE_WAY + name) for name in objectives}, row["cause"], left


def said(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What MLflow is told of a row: the arguments of `Spool.end_trial`."""
    figures = {
        name: float(value)
        for name, value in row.items()
        if name != "epochs" and name not in DEFAULTS and isinstance(value, int | float) and math.isfinite(value)
    }
    end = {
        "status": row["status"],
        "cause": row["cause"],
        "warnings": list(row["warnings"]),
        "step": int(row["epochs"]),
    }
    return {"trial_id": row["trial_id"], **end, "metrics": figures, "verdict": row["audit"]}


def settle(
    teller: Teller,
    spool: Spool,
    running: Iterable[int],
    rows: Mapping[str, Mapping[Any, Any]],
    objectives: Mapping[str, Direction],
) -> list[int]:
    """Tells MLflow and the study of the trials that have a row of their own end, of which they do not know.

    Returns:
        Those of `running` that have none.
    """
    ended = {name: row for name, row in rows.items() if has_ended(row)}
    known = spool.ended() if ended else {}
    for name, row in ended.items():
        if name not in known or not has_ended(known[name]):
            spool.end_trial(**said(row))
    unended = []
    for number in running:
        if (name := trial_id(number)) in ended:
            teller.tell(number, *told(ended[name], objectives))
        else:
            unended.append(number)
    return unended
