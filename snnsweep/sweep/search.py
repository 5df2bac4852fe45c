"""Optuna behind Ray Tune's `Searcher`: a persistent study, asked and told.

Ray's own OptunaSearch tells Optuna a trial that was stopped early as complete, leaves one with a missing value
running for ever, and pickles the user's functions. Here every ended trial is told finite values; one that did not
finish gets the worst ones and a violated constraint, since TPE learns nothing from a failed state.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from snnsweep.config import Flat
from snnsweep.errors import SpaceError
from snnsweep.result import Direction, Result, Status
from snnsweep.sweep.space import Space

STUDY_FILE = "study.log"
CONSTRAINT = "not_finished"  # above 0 for a trial whose values are not its own
UNBOUNDED = 1e6  # told for a metric to be minimised of which nothing was seen yet


def _tpe(seed: int, startup: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)


class GridSampler(BruteForceSampler):
    """Every combination of the space once, in an order drawn from the seed."""

    def after_trial(self, *ended: Any) -> None:
        """Optuna's own would stop an `optimize` loop here; `StudySearcher` ends the sweep at the first repetition."""


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsga2": lambda seed, startup: NSGAIISampler(seed=seed, population_size=max(startup, 8)),
    "random": lambda seed, startup: RandomSampler(seed=seed),
    "grid": lambda seed, startup: GridSampler(seed=seed),
}


def check_sampler(sampler: str, space: Space, defaults: Flat, overrides: Flat) -> None:
    """A grid needs steps: draws one variant.

    Raises:
        SpaceError: the space suggests a float without `step`, or fails otherwise.
    """
    if sampler == "grid":
        space.sample(optuna.create_study(sampler=GridSampler(seed=0)).ask(), defaults, overrides)


def open_study(folder: Path, name: str, objectives: Mapping[str, Direction], sampler: BaseSampler) -> optuna.Study:
    """The sweep's study, in a journal file that `optuna-dashboard` opens."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / STUDY_FILE)))
    study = optuna.create_study(
        storage=storage, study_name=name, directions=list(objectives.values()), sampler=sampler, load_if_exists=True
    )
    study.set_metric_names(list(objectives))
    return study


class StudySearcher(Searcher):
    """Asks a study for variants and tells it their results.

    A suggestion is `{"number": int, "flat": config}`, or with "cause" in place of a valid config where the space
    failed for these parameters.

    Attributes:
        open: Optuna's trials that have not ended, by Ray's trial id.
    """

    def __init__(self, study: optuna.Study, space: Space, defaults: Flat, overrides: Flat):
        super().__init__()
        self.study, self.space, self.defaults, self.overrides = study, space, defaults, overrides
        self.objectives = space.objectives
        self.open: dict[str, optuna.Trial] = {}
        self._worst: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a string
        trial = self.study.ask()
        suggestion: dict[str, Any] = {"number": trial.number}
        try:
            suggestion["flat"] = self.space.sample(trial, self.defaults, self.overrides).to_flat()
        except SpaceError as error:
            suggestion |= {"flat": dict(trial.params), "cause": str(error)}
        if isinstance(self.study.sampler, GridSampler) and self._seen(trial):
            trial.set_user_attr("cause", "the grid is spent")
            self.study.tell(trial, state=TrialState.FAIL)
            return Searcher.FINISHED
        self.open[trial_id] = trial
        return suggestion

    def _seen(self, trial: optuna.Trial) -> bool:
        return any(earlier.params == trial.params for earlier in self.study.get_trials()[: trial.number])

    def close(self) -> None:
        """Tells the trials that never ended as stopped: none stays running in the study for ever."""
        for trial_id in list(self.open):
            trial = self.open.pop(trial_id)
            self._tell_nothing(trial, "stopped")

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if trial_id not in self.open:
            return
        text = (result or {}).get("result")
        trial = self.open.pop(trial_id)
        if text and not error:
            self._tell(trial, Result.model_validate_json(text))
        else:
            self._tell_nothing(trial, "failed" if error else "stopped")

    def _tell(self, trial: optuna.Trial, outcome: Result) -> None:
        metrics = outcome.metrics if outcome.status == "finished" else {}
        values = [metrics.get(name, math.nan) for name in self.objectives]
        if outcome.cause:
            trial.set_user_attr("cause", outcome.cause)
        if not all(map(math.isfinite, values)):
            self._tell_nothing(trial, outcome.status)
            return
        self._remember(values)
        self._finish(trial, outcome.status, values, 0.0)

    def _tell_nothing(self, trial: optuna.Trial, status: Status) -> None:
        self._finish(trial, status, [self.worst(name) for name in self.objectives], 1.0)

    def _finish(self, trial: optuna.Trial, status: Status, values: list[float], violated: float) -> None:
        trial.set_constraint(CONSTRAINT, violated)
        trial.set_user_attr("status", status)
        self.study.tell(trial, values)

    def worst(self, name: str) -> float:
        """A finite value that no finished trial is worse than: 0 for what is maximised, else the worst seen."""
        if self.objectives[name] == "maximize":
            return min(0.0, self._worst.get(name, 0.0))
        return self._worst.get(name, UNBOUNDED)

    def _remember(self, values: list[float]) -> None:
        for (name, way), value in zip(self.objectives.items(), values, strict=True):
            pick = min if way == "maximize" else max
            self._worst[name] = pick(self._worst.get(name, value), value)

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher. The study stays where it is; a storage may hold a password."""
        return self.__dict__ | {"study": None, "open": {}}

    def save(self, checkpoint_path: str) -> None:
        """Ray's snapshot: the study is the state; beside it is written which of Ray's trials is which of Optuna's."""
        Path(checkpoint_path).write_text(json.dumps({ray_id: trial.number for ray_id, trial in self.open.items()}))
