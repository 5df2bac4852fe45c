"""The driver's view of a running sweep: what Ray reports becomes rows, told trials, MLflow runs and progress."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from ray import tune
from ray.tune.experiment import Trial

from snnsweep.config import TrialConfig
from snnsweep.errors import SnnSweepError, UserError
from snnsweep.result import ON_THE_WAY, Result, Status
from snnsweep.results.store import Store
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.blame import is_no_end
from snnsweep.sweep.course import course
from snnsweep.sweep.ledger import GIVEN_UP, OPEN_ENDED, told
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.search import Teller
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.tries import Tries, cause_of, error_of, host_of
from snnsweep.sweep.tuning import LOST_WORKERS, Ender, trial_name
from snnsweep.tracking.spool import Spool

IN_A_ROW = 3  # trials that are given up with none that ends between them: it is not one machine, or it takes them all
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
        text: hash of the space's, for the rows of trials that did not come to an end of their own.

    Attributes:
        trouble: why the sweep cannot go on; None while it can.
        lost: that Ray gave up a trial with tries left; such trials have not ended, and are taken up by another run.
        given_up: trials that no machine brought to an end, with the last error of each. They have not ended either, but
            only a resumed sweep tries them again.
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
        text: str = "",
    ):
        self.store, self.teller, self.spool, self.progress, self.listener = store, teller, spool, progress, listener
        self.tidy, self.ender, self.asha, self.epochs, self.text = tidy, ender, asha, epochs, text
        self.trouble: Exception | None = None
        self.lost: Exception | None = None
        self.given_up: dict[str, str] = {}
        self._tries, self._in_a_row = Tries(), 0
        self._ended: set[str] = set()
        self._at_rung: dict[str, dict[str, float]] = {}  # what was measured at the last one
        self._open: dict[str, Trial] = {}
        self._met = 0
        self._front: list[str] = []  # as MLflow was told
        self._digests: set[str] = set()  # of data sets that the sweep's run has

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks; files, server and terminal stay with this process."""
        return {}

    def begin(self) -> None:
        """A run of Ray's begins, with trials of its own."""
        self.lost, self._met = None, 0

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        new = [trial for trial in trials[self._met :] if trial_name(trial) not in self._ended]
        for trial in new:
            if self._open.get(name := trial_name(trial)) is not trial:
                self._tries.begin(trial)
            self._open[name] = trial
        self._met = len(trials)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._met = 0  # Ray puts it at the end of its list, which else only grows
        self._tries.lose(trial)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = trial_name(trial)
        if name in self._ended:  # its process was lost when its last checkpoint was to be written
            return
        flat = trial.config["flat"]
        self.progress.begin(name, self.epochs.get(name, 0), flat.get("train.epochs"))
        self.spool.start_trial(name, name, flat)
        self.listener(self.progress)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        name = trial_name(trial)
        ended, metrics = result.pop("result", None), result.pop("metrics", None)  # or Ray keeps them as long as it runs
        sets = result.pop("sets", [])
        if name in self._ended:
            return
        if sets:
            self._say_sets(name, sets)
        if ended is not None:
            traceback, text = result.pop("traceback"), result.pop("text", "")
            if self.asha and name in self.asha.stopped:  # before a crash; it has gone on to its end since
                return  # `on_trial_complete` has its row
            self._end(trial, Result.model_validate_json(ended), traceback, text)
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
        cause, name = cause_of(trial), trial_name(trial)
        self._tries.lose(trial)
        if name not in self._ended and self._tries.left(trial):
            self.lost = SnnSweepError(f"Ray lost {name} and did not start it again: {cause}")
        elif is_no_end(error_of(trial)):
            self._give_up(trial, f"{cause}{host_of(trial)}")
        else:
            self._end(trial, self._unfinished(trial, "failed", cause))

    def _give_up(self, trial: Trial, cause: str) -> None:
        """That says nothing of the variant: the study has it running still, and a resumed sweep goes on with it."""
        name = trial_name(trial)
        if name in self._ended:
            return
        self.given_up[name] = cause
        self._in_a_row += 1
        said = (f"last tried without success: {cause}",)
        self._end(trial, self._unfinished(trial, "stopped", GIVEN_UP).model_copy(update={"warnings": said}))
        if self._in_a_row >= IN_A_ROW:
            self._stop_for(self.without_end())

    def without_end(self) -> SnnSweepError:
        """What is said of the trials that were given up."""
        listed = "; ".join(f"{name}: {cause}" for name, cause in list(self.given_up.items())[-IN_A_ROW:])
        count = len(self.given_up)
        trials = "1 trial has" if count == 1 else f"{count} trials have"
        return SnnSweepError(
            f"{trials} no end, since the machines failed, {LOST_WORKERS + 1} times for each ({listed})"
        )

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

    def _end(self, trial: Trial, result: Result, traceback: str = "", text: str = "") -> None:
        name = trial_name(trial)
        if name in self._ended or self.trouble:
            return
        found = next(filter(None, map(_of_rung, reversed(result.history))), self._at_rung.pop(name, {}))
        result = result.model_copy(update={"metrics": found | result.metrics})
        row = result.row(name) | {"space_sha256": text or self.text}
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
                self._in_a_row = 0
                self.teller.tell(trial.config["number"], *told(row, self.progress.objectives))
        except (SnnSweepError, OSError, OptunaError) as error:
            self._stop_for(error)
            return
        self.progress.note(name, result)
        if result.cause not in OPEN_ENDED:  # else a resumed sweep goes on with it: it has not ended for good
            self.spool.log_course(self.progress.done, course(self.progress))
        if (members := self.progress.front) != self._front:
            self._front = members
            self.spool.mark_front(members)
        self.listener(self.progress)

    def _say_sets(self, name: str, sets: list[dict[str, Any]]) -> None:
        self.spool.log_data(name, sets)
        if new := [one for one in sets if one["digest"] not in self._digests]:
            self.spool.log_data("", new)  # the sweep's run has those of all its trials
            self._digests |= {one["digest"] for one in new}

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
