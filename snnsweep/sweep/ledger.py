"""The rows and Optuna's study say the same of a sweep; a row is written first, so that it decides after a crash."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from snnsweep.result import ON_THE_WAY, Direction, Status
from snnsweep.sweep.checkpoints import trial_id
from snnsweep.sweep.search import Teller

INTERRUPTED, OUT_OF_TIME, BROKE = "interrupted", "the time budget ended", "the sweep broke"
OPEN_ENDED = (INTERRUPTED, OUT_OF_TIME, BROKE)  # a trial stopped for one of these is gone on with by a resumed sweep


def has_ended(row: Mapping[str, Any]) -> bool:
    """Whether that is the trial's own end, and not the sweep's."""
    return row["status"] != "stopped" or row["cause"] not in OPEN_ENDED


def told(
    row: Mapping[str, Any], objectives: Mapping[str, Direction]
) -> tuple[Status, dict[str, float], str, float | None]:
    """What Optuna is told of a row: status, values, cause and, where a rung stopped it, the share not trained."""
    stopped = row["status"] == "stopped"
    names = {name: ON_THE_WAY + name if stopped else name for name in objectives}
    values = {name: float(row[column]) for name, column in names.items() if row.get(column) is not None}
    whole = row.get("train.epochs") or math.inf
    return row["status"], values, row["cause"], 1 - row["epochs"] / whole if stopped else None


def settle(
    teller: Teller, running: Iterable[int], rows: Mapping[str, Mapping[str, Any]], objectives: Mapping[str, Direction]
) -> list[int]:
    """Tells the trials that have a row of their own end and run on in the study; gives those that have none."""
    unended = []
    for number in running:
        row = rows.get(trial_id(number))
        if row is None or not has_ended(row):
            unended.append(number)
        else:
            teller.tell(number, *told(row, objectives))
    return unended
