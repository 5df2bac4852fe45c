"""The driver's view of a running sweep: what Ray reports becomes rows, MLflow runs and progress."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from snnsweep.config import TrialConfig
from snnsweep.errors import UserError
from snnsweep.result import Direction, Result, Status
from snnsweep.results.front import front
from snnsweep.results.store import Store, write_front
from snnsweep.tracking.mlflow import Tracker

ERRORS = "errors"  # in a sweep's folder: the tracebacks of failed trials


@dataclass
class Progress:
    """What can be said of a sweep while it runs.

    Attributes:
        ended: trial counts by status.
        running: epochs done of each running trial.
        best: for each objective its best value among the finished and whose it is.
        seconds: wall-clock times of the ended trials.
        last: the last ended trial's id and result.
    """

    total: int
    objectives: Mapping[str, Direction]
    slots: int
    ended: dict[Status, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    best: dict[str, tuple[float, str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    front_size: int = 0
    last: tuple[str, Result] | None = None

    @property
    def done(self) -> int:
        return sum(self.ended.values())

    @property
    def left_s(self) -> float | None:
        """Seconds left, from the median trial so far and the trials that run side by side."""
        if not self.seconds:
            return None
        return median(self.seconds) * (self.total - self.done) / max(1, self.slots)

    def note(self, trial_id: str, result: Result) -> None:
        self.ended[result.status] = self.ended.get(result.status, 0) + 1
        self.last = (trial_id, result)
        if result.status != "finished":
            return
        for name, way in self.objectives.items():
            value = result.metrics.get(name)
            known = self.best.get(name)
            if value is not None and (known is None or (value > known[0] if way == "maximize" else value < known[0])):
                self.best[name] = (value, trial_id)


def trial_name(trial: Trial) -> str:
    """The id that users see: Optuna's number."""
    return f"t{trial.config['number']:04d}"


class Recorder(tune.Callback):
    """Writes each ended trial to the store and the tracker, and tells a listener."""

    def __init__(self, store: Store, tracker: Tracker, progress: Progress, listener: Callable[[Progress], None]):
        self.store, self.tracker, self.progress, self.listener = store, tracker, progress, listener
        self._ended: set[str] = set()
        self._since: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks; files, server and terminal stay with this process."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for trial in trials[len(self._trials) :]:  # Ray's list only grows
            self._trials[trial_name(trial)] = trial

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = trial_name(trial)
        self._since.setdefault(name, time.time())
        self.progress.running.setdefault(name, 0)
        self.tracker.start_trial(name, name, trial.config["flat"])
        self.listener(self.progress)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        name = trial_name(trial)
        if "result" in result:
            keep_traceback(self.store.path.parent, name, result["traceback"])
            self._end(trial, Result.model_validate_json(result["result"]))
        elif "metrics" in result:
            self.progress.running[name] = result["epoch"]
            self.tracker.log_epoch(name, result["epoch"], result["metrics"])
            self.listener(self.progress)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial, self._unfinished(trial, "stopped", "stopped before its end"))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial, self._unfinished(trial, "failed", cause_of(trial)))

    def stop_rest(self, cause: str) -> None:
        """Rows for the trials that were chosen but had not ended when the sweep did."""
        for trial in self._trials.values():
            self._end(trial, self._unfinished(trial, "stopped", cause))

    def _unfinished(self, trial: Trial, status: Status, cause: str) -> Result:
        try:
            config = TrialConfig.from_flat(trial.config["flat"])
        except UserError:  # the space gave no valid config for these parameters
            config = TrialConfig()
        epochs = self.progress.running.get(trial_name(trial), 0)
        return Result(status=status, config=config, cause=cause, epochs=epochs)

    def _end(self, trial: Trial, result: Result) -> None:
        name = trial_name(trial)
        if name in self._ended:
            return
        self._ended.add(name)
        row = result.row(name)
        if result.status == "failed":  # what was asked for, also where no config could be made of it
            row |= dict.fromkeys(result.config.to_flat()) | trial.config["flat"]
        self.store.add(row)
        self.tracker.end_trial(
            name, result.status, result.metrics, result.warnings, result.cause, result.epochs, result.verdict
        )
        self.progress.running.pop(name, None)
        self.progress.seconds.append(time.time() - self._since.get(name, time.time()))
        self.progress.note(name, result)
        members = front(self.store.frame(), self.progress.objectives)
        write_front(self.store.path.parent, members)
        self.progress.front_size = len(members)
        self.listener(self.progress)


def keep_traceback(folder: Path, name: str, text: str) -> None:
    """Writes it, where there is one, among the errors of the sweep or confirmation in that folder."""
    if text:
        errors = folder / ERRORS
        errors.mkdir(exist_ok=True)
        (errors / f"{name}.txt").write_text(text)


def cause_of(trial: Trial) -> str:
    """The last line of the error that ended a trial: `ValueError: ...`."""
    error = trial.get_pickled_error()
    inner = getattr(error, "cause", None) or error
    return f"{type(inner).__name__}: {inner}".strip().splitlines()[-1] if inner else "the trial's process was lost"
