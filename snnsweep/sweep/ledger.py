"""The rows and Optuna's study say the same of a sweep; a row is written first, so that it decides after a crash."""

from collections.abc import Iterable, Mapping
from typing import Any

from snnsweep.result import ON_THE_WAY, Direction, Status
from snnsweep.sweep.checkpoints import trial_id
from snnsweep.sweep.search import Teller

INTERRUPTED, OUT_OF_TIME, BROKE = "interrupted", "the time budget ended", "the sweep broke"
OPEN_ENDED = (INTERRUPTED, OUT_OF_TIME, BROKE)  # a trial stopped for one of these is gone on with by a resumed sweep


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


def settle(
    teller: Teller, running: Iterable[int], rows: Mapping[str, Mapping[Any, Any]], objectives: Mapping[str, Direction]
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
