"""TPE whose cost does not grow with the trials, and which does not repeat itself while there is something else."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from snnsweep.sweep.history import History

BOUND = 500  # told trials up to which TPE sees all of them
BEST = 100  # of more, so many good ones are shown at most: Optuna's tenth of 1,000
BEST_OF_ONE = 25  # Optuna's own limit where there is one objective
OTHERS = 400  # and so many of the rest
DRAWS, RANDOM_DRAWS = 3, 100  # for parameters that were not asked for yet


class BoundedTPE(TPESampler):
    """Optuna's multivariate, grouped TPE, which sees a part of a long study.

    With at most `bound` told trials an ask gives, bit for bit, what Optuna's own gives under the same seed, except
    where that would repeat a trial. Beyond, the good trials are the best tenth, at most `BEST`, by fronts; the others
    are a sample of the rest at even distances, and all that are running. Trials that were pruned or failed are not
    looked at: a sweep tells neither, but what a spent grid repeated.

    Parameters that a trial of this sweep was asked for already are drawn again, from the model and then at random, and
    accepted in the end: the space may be exhausted, or give such a trial another seed of its own. The trials before
    the model's first may repeat each other: there, Optuna draws each parameter without the others.

    Args:
        startup: trials drawn at random before the model is asked.
    """

    def __init__(self, seed: int, startup: int, bound: int = BOUND, best: int = BEST, others: int = OTHERS):
        super().__init__(seed=seed, n_startup_trials=startup, multivariate=True, group=True)
        self._bound, self._best, self._others = bound, best, others
        self._history: History | None = None
        self._good: list[FrozenTrial] = []
        self._bad: list[FrozenTrial] = []
        self._scatter = RandomSampler(seed=seed)
        self._read: dict[tuple[tuple[str, BaseDistribution], ...], dict[int, tuple[float, ...] | None]] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._history is None:
            self._history = History(study)
        self._history.take(study.get_trials(deepcopy=False))
        if not self._long:
            return super().infer_relative_search_space(study, trial)
        most = self._best if len(study.directions) > 1 else min(self._best, BEST_OF_ONE)
        self._good = self._history.best(min(-(-len(self._history.told) // 10), most))
        running = [other for other in self._history.running if other.number != trial.number]
        self._bad = sorted(self._history.others(self._good, self._others) + running, key=lambda bad: bad.number)
        self._search_space_group = self._history.group
        spaces = self._history.group.search_spaces
        return {key: one for space in spaces for key, one in sorted(space.items()) if not one.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        assert self._history is not None
        for _ in range(DRAWS):
            guess = super().sample_relative(study, trial, search_space)
            if not self._history.asked(guess, trial.number):
                return guess
        for _ in range(RANDOM_DRAWS):
            drawn = {key: self._scatter.sample_independent(study, trial, key, one) for key, one in search_space.items()}
            if not self._history.asked(drawn, trial.number):
                return drawn
        return guess

    @property
    def _long(self) -> bool:
        return self._history is not None and len(self._history.told) > self._bound

    def _sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna's own counts all trials for each group of parameters first."""
        if search_space and self._long:
            return self._sample(study, trial, search_space)
        return super()._sample_relative(study, trial, search_space)

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's own, but for who is good and who is not."""
        if not self._long:
            return super()._sample(study, trial, search_space)
        good = self._build_parzen_estimator(study, search_space, self._good, handle_below=True)
        bad = self._build_parzen_estimator(study, search_space, self._bad, handle_below=False)
        drawn = good.sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(drawn, self._compute_acquisition_func(drawn, good, bad))
        return {key: one.to_external_repr(chosen[key]) for key, one in search_space.items()}

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, np.ndarray]:
        """As Optuna's own, which reads every trial's parameters again at every ask: what was told is read once."""
        assert self._history is not None
        key = tuple(search_space.items())
        if key not in self._read:
            self._read[key] = {told.number: _row(told.params, search_space) for told in self._history.told}
        read, rows = self._read[key], []
        for trial in trials:
            number = trial.number
            if number in read:
                row = read[number]
            else:
                row = _row(self._get_params(trial, study), search_space)
                if trial.state.is_finished():
                    read[number] = row
            if row is not None:
                rows.append(row)
        columns = np.array(rows).reshape(len(rows), len(search_space)).T
        return dict(zip(search_space, columns, strict=True))


def _row(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> tuple[float, ...] | None:
    """Optuna's numbers for a trial's parameters; None where it lacks one."""
    if not space.keys() <= params.keys():
        return None
    return tuple(one.to_internal_repr(params[name]) for name, one in space.items())
