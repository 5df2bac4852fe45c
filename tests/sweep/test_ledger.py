"""What a resumed sweep tells of the trials that ended before it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snnsweep.config import TrialConfig
from snnsweep.result import Result
from snnsweep.sweep.ledger import INTERRUPTED, settle
from snnsweep.tracking.journal import Journal


def row(name: str, status: Any = "finished", cause: str = "") -> dict[str, Any]:
    metrics = {"clean_accuracy": 0.5}
    return Result(status=status, config=TrialConfig(), metrics=metrics, cause=cause, epochs=2).row(name)


def test_mlflow_and_the_study_are_told_what_they_do_not_know(tmp_path: Path) -> None:
    """A full disk took the row of t0001 and of t0002, but not the lines that tell MLflow of their ends."""
    journal = Journal(tmp_path, "run")
    for name, cause in (("t0000", ""), ("t0002", INTERRUPTED)):  # t0002 went on after that
        said = {"trial_id": name, "status": "stopped" if cause else "finished", "cause": cause}
        journal.append({"call": "end_trial", "at": 1, "said": said})
    journal.append({"call": "log_epoch", "at": 1, "said": {"trial_id": "t0001", "metrics": {"end_trial": 1.0}}})
    rows = {name: row(name) for name in ("t0000", "t0001", "t0002")} | {"t0003": row("t0003", "stopped", INTERRUPTED)}
    ends: list[str] = []
    told: list[int] = []
    spool: Any = SimpleNamespace(
        ended=lambda: journal.said_last("end_trial"), end_trial=lambda trial_id, **said: ends.append(trial_id)
    )
    teller: Any = SimpleNamespace(tell=lambda number, *said: told.append(number))
    assert settle(teller, spool, [2, 3, 4], rows, {"clean_accuracy": "maximize"}) == [3, 4]
    assert (ends, told) == (["t0001", "t0002"], [2])
