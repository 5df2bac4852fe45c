"""One pair of a confirmation, a member and a seed, as a Ray Tune trainable; and the driver that keeps its row."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from snnsweep import data
from snnsweep.config import TrialConfig
from snnsweep.measurement import Measurement
from snnsweep.result import Result
from snnsweep.results.store import Store
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.space import Space
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.trainable import SweepTrial
from snnsweep.sweep.trials import load_trial
from snnsweep.sweep.tries import cause_of
from snnsweep.sweep.watch import keep_traceback
from snnsweep.tracking.spool import Spool

SPLIT = "test"


def pair_name(trial: Trial) -> str:
    """The id that users see: `t0003-seed1-strong-1000`."""
    return str(trial.config["pair"]["trial_id"])


class ConfirmTrial(SweepTrial):
    """Trains as the sweep did, with the pair's seed, or takes the member's stored weights; judges on the test split.

    The test split is looked at once, by the last step.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters binds all but the config
        self, config: dict[str, Any], spaces: Mapping[str, Space], data_dir: str, threads: int, folder: str
    ) -> None:
        """Args:
        config: under "pair" what `Confirmation` asks for.
        spaces: by hash; the stored trials that are read may have had another one than this pair.
        folder: of the sweep, whose models are read.
        """
        self.pair, self.folder, self.data_dir = config["pair"], Path(folder), Path(data_dir)
        if len(spaces) > 1:
            vars(self).pop("space", None)  # what was executed last may be the text of a stored trial
        super().setup(self.pair, replace(spaces[self.pair["space_sha256"]]), data_dir, threads)

    def _build(self, parts: int = 1) -> None:
        super()._build(parts)
        if self.evaluation and self.pair["stored"]:
            stored = load_trial(self.folder, self.pair["member"], self.data_dir).model
            self.evaluation.model.load_state_dict(stored.state_dict())
            self.evaluation.trainer.epochs_done = self.evaluation.config.train.epochs

    def _identities(self) -> list[dict[str, Any]]:
        assert self.evaluation
        return data.identities(self.config_of_trial, self.evaluation.data, ("train", SPLIT))

    def _epoch_or_end(self) -> dict[str, float] | None:
        trial = self.evaluation
        if trial and trial.trained:
            judged = replace(trial.data, validation=trial.data.test)
            sources = {
                name: load_trial(self.folder, name, self.data_dir).model.to(trial.device)
                for name in self.pair["sources"]
            }
            batch = trial.measurement.batch
            trial.measurement = Measurement(trial.model, trial.config, judged, sources)
            trial.measurement.batch = batch
        return super()._epoch_or_end()


class Keeper(tune.Callback):
    """Writes each ended pair's row at once, then tells MLflow and a listener."""

    def __init__(self, rows: Store, spool: Spool, progress: Progress, listener: Callable[[Progress], None], tidy: Tidy):
        self.rows, self.spool, self.progress, self.listener, self.tidy = rows, spool, progress, listener, tidy
        self._sets: dict[str, list[dict[str, Any]]] = {}
        self._ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks; files and terminal stay with this process."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        flat = trial.config["pair"]["flat"]
        epochs = 0 if trial.config["pair"]["stored"] else flat["train.epochs"]
        self.progress.begin(pair_name(trial), 0, epochs)
        self.listener(self.progress)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if sets := result.pop("sets", []):
            self._sets[pair_name(trial)] = sets
        if "result" in result:
            keep_traceback(self.rows.path.parent, pair_name(trial), result["traceback"])
            self._end(trial.config["pair"], Result.model_validate_json(result["result"]))
        else:
            self.progress.running[pair_name(trial)] = result["epoch"]
            self.listener(self.progress)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.tidy.keep_newest(pair_name(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        pair = trial.config["pair"]
        if pair["trial_id"] in self.progress.running:
            config = TrialConfig.from_flat(pair["flat"])
            self._end(pair, Result(status="failed", config=config, cause=cause_of(trial)))

    def _end(self, pair: dict[str, Any], result: Result) -> None:
        name = pair["trial_id"]
        if name in self._ended:  # its process was lost when its last checkpoint was to be written
            return
        self._ended.add(name)
        own = {name: pair[name] for name in ("member", "stored", "sources", "space_sha256")} | {"split": SPLIT}
        self.rows.add(result.row(name) | pair["flat"] | own)
        said = (result.status, result.metrics, result.warnings, result.cause, result.verdict)
        params = pair["flat"] | {"stored": pair["stored"], "split": SPLIT}
        self.spool.log_confirmed(name, pair["member"], params, *said, self._sets.pop(name, []))
        self.progress.note(name, result)
        self.listener(self.progress)
