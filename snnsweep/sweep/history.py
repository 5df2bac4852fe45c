"""What a sampler is shown of a long study: its best trials, and a sample of the rest.

Everything is kept up to date as trials are told, so that what is shown is not looked for among all of them. It depends
on the told trials alone, not on the order in which they came.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from snnsweep.sweep.asha import Fronts, epsilon_net
from snnsweep.sweep.study import WARM

Params = Mapping[str, Any]


class Elite:
    """The best of all trials that were added, by non-dominated fronts.

    Args:
        objectives: how many.
    """

    def __init__(self, objectives: int):
        self._fronts, self._trials = Fronts(objectives), list[FrozenTrial]()
        self._best: dict[int, list[FrozenTrial]] = {}  # by count, until another one belongs there
        self._cut = 0  # the last front of these

    def add(self, trial: FrozenTrial, costs: list[float]) -> None:
        """Takes a trial; less is better."""
        self._fronts.add(costs)
        self._trials.append(trial)
        if self._fronts.ranks[-1] <= self._cut:
            self._best.clear()

    def best(self, count: int) -> list[FrozenTrial]:
        """The best `count` by front; the front that is cut is thinned out evenly (an epsilon-net)."""
        if count not in self._best:
            self._best = {count: self._chosen(count)}
        return self._best[count]

    def _chosen(self, count: int) -> list[FrozenTrial]:
        ranks = self._fronts.ranks
        self._cut = int((np.cumsum(np.bincount(ranks)) < count).sum())
        chosen = np.flatnonzero(ranks < self._cut).tolist()
        cut = sorted(np.flatnonzero(ranks == self._cut).tolist(), key=lambda index: self._trials[index].number)
        if (room := count - len(chosen)) < len(cut):
            cut = [cut[place] for place in epsilon_net(self._fronts.points[cut], room)]
        return [self._trials[index] for index in chosen + cut]


class Asked:
    """The parameters that were asked for before."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}

    def add(self, params: Params) -> None:
        if params:
            names = tuple(sorted(params))
            self._values.setdefault(names, set()).add(_values(params, names))

    def holds(self, guess: Params) -> bool:
        """Whether a space that is given these values, and takes those it asks for, would ask as before."""
        return any(
            guess.keys() >= set(names) and _values(guess, names) in values for names, values in self._values.items()
        )


def _free(trial: FrozenTrial) -> dict[str, Any]:
    """Without parameters of one value, which no sampler draws."""
    return {name: value for name, value in trial.params.items() if not trial.distributions[name].single()}


def _number(trial: FrozenTrial) -> int:
    return trial.number


def _values(params: Params, names: Iterable[str]) -> tuple[Any, ...]:
    """Steps of a float are the same whatever they were computed by."""
    return tuple(float(f"{value:.12g}") if isinstance(value := params[name], float) else value for name in names)


class History:
    """A study's trials, as far as they were looked at.

    Attributes:
        told: those with values, by number.
        running: those that were asked and not told.
        group: the parameters that occur together, of those with values, as Optuna decomposes them.
    """

    def __init__(self, study: optuna.Study):
        self._signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in study.directions]
        self._elite, self._asked = Elite(len(self._signs)), Asked()
        self._next, self._open, self._together = 0, list[int](), set[frozenset[str]]()
        self._infeasible: list[tuple[float, int, FrozenTrial]] = []
        self.told: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self.group = _SearchSpaceGroup()

    def take(self, trials: Sequence[FrozenTrial]) -> None:
        """Looks at what is new, or had not ended.

        Args:
            trials: all of the study's, by number.
        """
        looked_at = [trials[number] for number in (*self._open, *range(self._next, len(trials)))]
        for trial in looked_at:
            if trial.state.is_finished():
                self._take(trial)
        self._next, self._open = len(trials), [trial.number for trial in looked_at if not trial.state.is_finished()]
        self.running = [trial for trial in looked_at if trial.state == TrialState.RUNNING]

    def _take(self, trial: FrozenTrial) -> None:
        if WARM not in trial.user_attrs:  # another sweep's trial was another network
            self._asked.add(_free(trial))
        if trial.state != TrialState.COMPLETE:
            return
        insort(self.told, trial, key=_number)
        if (names := frozenset(trial.distributions)) not in self._together:
            self._together.add(names)
            self.group.add_distributions(trial.distributions)
        violation = sum(violated for violated in trial.constraints.values() if violated > 0)
        if violation:
            insort(self._infeasible, (violation, trial.number, trial))
        else:
            self._elite.add(trial, [sign * value for sign, value in zip(self._signs, trial.values, strict=True)])

    def best(self, count: int) -> list[FrozenTrial]:
        """By number: the best feasible ones by front; where there are too few, those with the least violation too."""
        feasible = self._elite.best(count)
        others = [trial for _, _, trial in self._infeasible[: count - len(feasible)]]
        return sorted(feasible + others, key=_number)

    def others(self, best: Iterable[FrozenTrial], count: int) -> list[FrozenTrial]:
        """By number: of the told without the best, `count` at even distances."""
        free = np.ones(len(self.told), dtype=bool)
        free[[bisect_left(self.told, trial.number, key=_number) for trial in best]] = False
        places = np.flatnonzero(free)
        if count < len(places):
            places = places[np.linspace(0, len(places) - 1, count).round().astype(int)]
        return [self.told[place] for place in places]

    def asked(self, guess: Params, but: int) -> bool:
        """Whether a trial other than `but` has these parameters, or those of them that it was asked for."""
        ran = (_free(trial) for trial in self.running if trial.number != but)
        return self._asked.holds(guess) or any(params and params.items() <= guess.items() for params in ran)
