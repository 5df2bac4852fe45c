"""`Asha` as a Ray Tune scheduler that keeps its rungs in a file, since Ray does not save a scheduler's state."""

import json
import logging
from pathlib import Path
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from snnsweep import lines
from snnsweep.errors import UserError
from snnsweep.result import ON_THE_WAY
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.tuning import trial_name

RUNGS = "rungs.jsonl"  # in a sweep's folder
_LOGGER = logging.getLogger("snnsweep")


class RungScheduler(FIFOScheduler):
    """Stops a trial at a rung where `Asha` says so; starts trials in the order in which they were asked for.

    Ray pickles a scheduler once, before the first trial, so that a restored sweep would begin its rungs anew. Here
    each report at a rung is appended to `file`, and read again when the scheduler is made or unpickled.

    Args:
        asha: fresh; its metrics are looked for in a report's `metrics`, after `ON_THE_WAY`.
        file: of JSON lines, the settings first; in a folder that exists.

    Raises:
        UserError: the file was begun under other settings, or lacks them.
        OSError: it cannot be begun.
    """

    def __init__(self, asha: Asha, file: Path):
        super().__init__()
        self.asha, self.file = asha, file
        said = _said(file)
        if said:
            asha.load_state_dict({"settings": said[0], "records": said[1:]})
        else:
            lines.append(file, json.dumps(asha.settings))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Args:
        result: a report of `SweepTrial`, flattened by Ray: `epoch`, `metrics/rung/<name>`.
        """
        if trial_name(trial) in self.asha.stopped:  # before a crash, which came before its row
            return TrialScheduler.STOP
        epochs = trial.config["flat"]["train.epochs"]
        if "result" in result or result["epoch"] >= epochs:  # trained: the end comes next
            return TrialScheduler.CONTINUE
        known = len(self.asha.records)
        metrics = {name: result.get(f"metrics/{ON_THE_WAY}{name}") for name in self.asha.settings["metrics"]}
        goes_on = self.asha.goes_on(trial_name(trial), result["epoch"], metrics, epochs)
        for record in self.asha.records[known:]:
            self._append(record)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def _append(self, line: dict[str, Any]) -> None:
        try:
            lines.append(self.file, json.dumps(line))
        except OSError as error:  # a full disk: what is lost is one trial's mark, and only for a resumed sweep
            _LOGGER.warning("%s could not be written (%s); a resumed sweep will not know %s", self.file, error, line)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (Asha(**self.asha.settings), self.file)


def longest_of(file: Path) -> int | None:
    """`longest` of the settings that a file of rungs was begun with; None where there is no such file.

    Raises:
        UserError: the file lacks its settings.
    """
    said = _said(file)
    return int(said[0]["longest"]) if said else None


def _said(file: Path) -> list[dict[str, Any]]:
    said = [line.said for line in lines.after(file) if line.said is not None]
    if said and not {"metrics", "longest"} <= said[0].keys():
        raise UserError(
            f"{file}: its first line, the settings of the rungs, is damaged or gone; put the file back, or delete it: "
            "whoever was stopped stays so, but trials from here on meet rungs where nobody has been"
        )
    return said
