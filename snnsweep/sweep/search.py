"""Optuna behind Ray Tune: `StudySearcher` asks the study for variants, `Teller` tells it how they ended.

Ray's own OptunaSearch tells Optuna a trial that was stopped early as complete, leaves one with a missing value
running for ever, never tells one that was run again, and pickles the storage with its password. Here every ended
trial is told finite values; one that did not finish has a violated constraint, since TPE learns nothing from a failed
state.
"""

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from ray.tune.search import Searcher

from snnsweep.config import Flat
from snnsweep.errors import SpaceError
from snnsweep.result import Status
from snnsweep.sweep.ahead import Ahead
from snnsweep.sweep.samplers import GridSampler
from snnsweep.sweep.space import Space
from snnsweep.sweep.study import CONSTRAINT, RETRY, objectives_of, put_back, trial_of
from snnsweep.tracking.address import redacted

UNBOUNDED = 1e6  # told for a metric to be minimised of which nothing was seen yet
LEAST_VIOLATION = 1e-3  # of a trial that was stopped after its last epoch
SLOTS_AN_ASK = 8  # trials side by side for each one that is chosen ahead
_LOGGER = logging.getLogger("snnsweep")


def asked_ahead(side_by_side: int) -> int:
    """How many trials are chosen before there is a slot for them.

    A trial that is chosen ahead is chosen without the results that come until it starts, as if so many more trials ran
    side by side: at most an eighth more, and one for less than eight. With one slot it is none: each trial is chosen
    knowing all before it, and the same seed gives the same sweep.
    """
    return math.ceil(side_by_side / SLOTS_AN_ASK) if side_by_side > 1 else 0


class StudySearcher(Searcher):
    """Asks a study for variants, some of them before they are wanted.

    A suggestion is `{"number": int, "flat": config}`, with a further "cause" where the space failed for these
    parameters; "flat" then holds the parameters alone. The study is asked by one thread, so that numbers and parameters
    come in the sampler's order, whatever `ahead` is.

    Args:
        study: its sampler is asked.
        again: numbers of trials that were asked for before and not told: these come first, as they were.
        most: suggestions that will be wanted, those of `again` among them; no more are asked for ahead.
        ahead: asked for before they are wanted, in a thread of its own; see `asked_ahead`.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        defaults: Flat,
        overrides: Flat,
        again: Sequence[int] = (),
        most: int = 0,
        ahead: int = 0,
    ):
        super().__init__()
        self.study, self.space, self.defaults, self.overrides = study, space, defaults, overrides
        self.again, self._known = deque(again), frozenset(again)
        self._ahead: Ahead[dict[str, Any]] = Ahead(self._next, most, ahead)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a string
        return self._ahead.take() or Searcher.FINISHED

    def close(self) -> None:
        """Ends the asking. What was asked for and never wanted waits in the study, and is what is asked for next.

        Where the study cannot be written, or after a kill, it stays there as running, and comes `again`.
        """
        for suggestion in self._ahead.close():
            number = suggestion["number"]
            if number in self._known:  # it has run before
                continue
            try:
                put_back(self.study, number)
            except (OSError, OptunaError) as error:
                _LOGGER.warning("trial %d, which never began, stays as running in the study (%s)", number, error)

    def _next(self) -> dict[str, Any] | None:
        while self.again:
            if suggestion := self._sample(trial_of(self.study, self.again.popleft())):
                return suggestion
        return self._sample(self.study.ask())

    def _sample(self, trial: optuna.Trial) -> dict[str, Any] | None:
        """A suggestion; None where the grid has nothing left, and repeats itself."""
        suggestion: dict[str, Any] = {"number": trial.number}
        try:
            suggestion["flat"] = self.space.sample(trial, self.defaults, self.overrides).to_flat()
        except SpaceError as error:
            suggestion |= {"flat": dict(trial.params), "cause": redacted(str(error))}
        if isinstance(self.study.sampler, GridSampler) and RETRY not in trial.user_attrs and self._seen(trial):
            trial.set_user_attr("cause", "the grid is spent")
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return suggestion

    def _seen(self, trial: optuna.Trial) -> bool:
        earlier = self.study.get_trials(deepcopy=False)[: trial.number]
        return any(other.params == trial.params for other in earlier)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: Ray says this before the trial's row is on disk. `Teller` is called after that, so that what a crash
        leaves between the two is a row whose trial still runs in the study, and can be told from the row.
        """

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher. The study stays where it is, as does its thread; a storage may hold a password."""
        return self.__dict__ | {"study": None, "_ahead": None}

    def save(self, checkpoint_path: str) -> None:
        """Ray's snapshot: empty, for the study is the state."""
        Path(checkpoint_path).touch()


class Teller:
    """Tells a study how its trials ended. The worst values known are those of its finished trials."""

    def __init__(self, study: optuna.Study):
        self.study, self.objectives = study, objectives_of(study)
        self._worst: dict[str, float] = {}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if all(violated <= 0 for violated in trial.constraints.values()):
                self._remember(trial.values)

    def tell(
        self,
        number: int,
        status: Status,
        values: Mapping[str, float | None],
        cause: str = "",
        violation: float | None = None,
    ) -> None:
        """Tells an ended trial, once; after that nothing changes it.

        Finished with all its objectives finite, it is told these. Stopped, it is told those of `values` that are
        finite, the worst for the others, and `violation`. Everything else is told the worst, and 1.

        Args:
            number: Optuna's.
            values: metrics, of which the objectives are looked for.
            cause: why it did not finish.
            violation: of a stopped trial, the share of its epochs that it did not train; by default 1.

        Raises:
            UserError: the study has no such trial.
            OSError: the study cannot be written; to be told again.
        """
        trial = trial_of(self.study, number)
        if self.study._storage.get_trial(trial._trial_id).state.is_finished():  # not a list of all: that is slow
            return
        told, violated = self._told(status, [_number(values.get(name)) for name in self.objectives], violation)
        trial.set_user_attr("status", status)
        if cause:
            trial.set_user_attr("cause", cause)
        if CONSTRAINT not in trial.constraints:  # a crash may have come after it
            trial.set_constraint(CONSTRAINT, violated)
        self.study.tell(trial, told)
        if not violated:
            self._remember(told)

    def _told(self, status: Status, found: list[float], violation: float | None) -> tuple[list[float], float]:
        worst = [self.worst(name) for name in self.objectives]
        if status == "finished" and all(map(math.isfinite, found)):
            return found, 0.0
        if status != "stopped":
            return worst, 1.0
        share = 1.0 if violation is None or math.isnan(violation) else min(max(violation, LEAST_VIOLATION), 1.0)
        return [own if math.isfinite(own) else bad for own, bad in zip(found, worst, strict=True)], share

    def worst(self, name: str) -> float:
        """A finite value that no finished trial is worse than: 0 for what is maximised, else the worst seen."""
        if self.objectives[name] == "maximize":
            return min(0.0, self._worst.get(name, 0.0))
        return self._worst.get(name, UNBOUNDED)

    def _remember(self, values: Sequence[float]) -> None:
        for (name, way), value in zip(self.objectives.items(), values, strict=True):
            pick = min if way == "maximize" else max
            self._worst[name] = pick(self._worst.get(name, value), value)


def _number(value: Any) -> float:
    """NaN for what a trial's row has not."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
