"""The driver's view of a running sweep: what Ray reports becomes rows, told trials, MLflow runs and progress."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from pyarrow import ArrowException
from ray import tune
from ray.tune.experiment import Trial

from snnsweep.config import TrialConfig
from snnsweep.errors import SnnSweepError, UserError
from snnsweep.result import ON_THE_WAY, Result, Status
from snnsweep.results.store import Store
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.ledger import OPEN_ENDED, told
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.search import Teller
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.tuning import Ender, trial_name
from snnsweep.tracking.spool import Spool

ERRORS = "errors"  # in a sweep's folder: the tracebacks of failed trials


class Recorder(tune.Callback):
    """Writes each ended trial to the store, then tells MLflow and the study of it, and a listener.

    In this order: a crash after the first is mended by the next start of the sweep, which finds the trial running in
    the study, and says the rest (`ledger.settle`).

    Args:
        tidy: is told of each trial that ended.
        epochs: that trials of an earlier start of the sweep had trained.
        ender: is told to end the sweep where rows cannot be written any more.
        asha: who stopped whom at which rung.

    Attributes:
        trouble: why the sweep cannot go on; None while it can.
        lost: what Ray gave up with tries left, as it does when it dies itself; such trials have not ended.
    """

    def __init__(
        self,
        store: Store,
        teller: Teller,
        spool: Spool,
        progress: Progress,
        listener: Callable[[Progress], None],
        tidy: Tidy,
        ender: Ender,
        asha: Asha | None,
        epochs: Mapping[str, int],
    ):
        self.store, self.teller, self.spool, self.progress, self.listener = store, teller, spool, progress, listener
        self.tidy, self.ender, self.asha, self.epochs = tidy, ender, asha, epochs
        self.trouble: Exception | None = None
        self.lost: Exception | None = None
        self._ended: set[str] = set()
        self._since: dict[str, float] = {}
        self._at_rung: dict[str, dict[str, float]] = {}  # what was measured at the last one
        self._open: dict[str, Trial] = {}
        self._met = 0

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks; files, server and terminal stay with this process."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        new = [trial for trial in trials[self._met :] if trial_name(trial) not in self._ended]
        self._open |= {trial_name(trial): trial for trial in new}
        self._met = len(trials)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._met = 0  # Ray puts it at the end of its list, which else only grows

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = trial_name(trial)
        if name in self._ended:  # its process was lost when its last checkpoint was to be written
            return
        self._since.setdefault(name, time.monotonic())
        self.progress.running.setdefault(name, self.epochs.get(name, 0))
        self.spool.start_trial(name, name, trial.config["flat"])
        self.listener(self.progress)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        name = trial_name(trial)
        ended, metrics = result.pop("result", None), result.pop("metrics", None)  # or Ray keeps them as long as it runs
        if name in self._ended:
            return
        if ended is not None:
            self._end(trial, Result.model_validate_json(ended), result.pop("traceback"))
        elif metrics is not None:
            self.progress.running[name] = result["epoch"]
            if found := _of_rung(metrics):
                self._at_rung[name] = found
            self.spool.log_epoch(name, result["epoch"], metrics)
            self.listener(self.progress)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = trial_name(trial)
        if self.asha and name in self.asha.stopped:
            self._end_at_rung(trial, self.asha)
        if name in self._ended:
            self.tidy.keep_newest(name)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        cause, error = cause_of(trial), error_of(trial)
        if isinstance(error, OSError | ArrowException | SnnSweepError):  # the disk's, the bucket's, the machine's
            self._stop_for(SnnSweepError(f"{trial_name(trial)} could not go on, which is no fault of its own: {cause}"))
        elif trial.should_recover():
            self.lost = SnnSweepError(f"Ray lost {trial_name(trial)} and did not start it again: {cause}")
        else:
            self._end(trial, self._unfinished(trial, "failed", cause))

    def stop_rest(self, cause: str) -> None:
        """Rows for the trials that were chosen but had not ended when the sweep did. The study has them running still.

        Args:
            cause: one of `OPEN_ENDED`.
        """
        for name, trial in list(self._open.items()):
            if self.asha and name in self.asha.stopped:
                self._end_at_rung(trial, self.asha)
            else:
                self._end(trial, self._unfinished(trial, "stopped", cause))

    def _end_at_rung(self, trial: Trial, asha: Asha) -> None:
        """With what was measured there, also where a restored trial had gone a step beyond."""
        name = trial_name(trial)
        epoch = asha.stopped[name]
        cause = f"rung of epoch {epoch}: not among the best 1 in {asha.settings['eta']}"
        (values,) = (one["values"] for one in asha.records if (one["trial"], one["epoch"]) == (name, epoch))
        compared = {ON_THE_WAY + key: value for key, value in zip(asha.settings["metrics"], values, strict=True)}
        metrics = self._at_rung.pop(name, {}) or {key: value for key, value in compared.items() if value is not None}
        self._end(
            trial, self._unfinished(trial, "stopped", cause).model_copy(update={"epochs": epoch, "metrics": metrics})
        )

    def _unfinished(self, trial: Trial, status: Status, cause: str) -> Result:
        try:
            config = TrialConfig.from_flat(trial.config["flat"])
        except UserError:  # the space gave no valid config for these parameters
            config = TrialConfig()
        epochs = self.progress.running.get(trial_name(trial), 0)
        return Result(status=status, config=config, cause=cause, epochs=epochs)

    def _end(self, trial: Trial, result: Result, traceback: str = "") -> None:
        name = trial_name(trial)
        if name in self._ended or self.trouble:
            return
        found = next(filter(None, map(_of_rung, reversed(result.history))), self._at_rung.pop(name, {}))
        result = result.model_copy(update={"metrics": found | result.metrics})
        row = result.row(name)
        if result.status == "failed":  # what was asked for, also where no config could be made of it
            row |= dict.fromkeys(result.config.to_flat()) | trial.config["flat"]
        said = (result.status, result.metrics, result.warnings, result.cause, result.epochs, result.verdict)
        self._ended.add(name)  # whatever comes now, there is no second row
        self._open.pop(name, None)
        try:
            keep_traceback(self.store.path.parent, name, traceback)
            self.store.add(row)
            self.spool.end_trial(name, *said)
            if result.cause not in OPEN_ENDED:
                self.teller.tell(trial.config["number"], *told(row, self.progress.objectives))
        except (SnnSweepError, OSError, OptunaError) as error:
            self._stop_for(error)
            return
        self._say(name, result)

    def _say(self, name: str, result: Result) -> None:
        self.progress.running.pop(name, None)
        self.progress.seconds.append(time.monotonic() - self._since.pop(name, time.monotonic()))
        self.progress.note(name, result)
        self.progress.front_size = self.store.front_size
        self.listener(self.progress)

    def _stop_for(self, error: Exception) -> None:
        self.trouble = self.trouble or error
        self.ender.now = True


def _of_rung(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(ON_THE_WAY)}


def keep_traceback(folder: Path, name: str, text: str) -> None:
    """Writes it, where there is one, among the errors of the sweep or confirmation in that folder."""
    if text:
        errors = folder / ERRORS
        errors.mkdir(exist_ok=True)
        (errors / f"{name}.txt").write_text(text)


def cause_of(trial: Trial) -> str:
    """The last line of the error that ended a trial: `ValueError: ...`."""
    inner = error_of(trial)
    return f"{type(inner).__name__}: {inner}".strip().splitlines()[-1] if inner else "the trial's process was lost"


def error_of(trial: Trial) -> Any:
    """The error that ended a trial, as it was raised there."""
    error = trial.get_pickled_error()
    return getattr(error, "cause", None) or error
