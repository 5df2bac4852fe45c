"""Optuna's samplers, by the names that `--sampler` takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
)
from optuna.trial import FrozenTrial

from snnsweep.config import Flat
from snnsweep.sweep.space import Space
from snnsweep.sweep.tpe import BoundedTPE

LEAST_POPULATION = 8


class GridSampler(BruteForceSampler):
    """Every combination of the space once, in an order drawn from the seed."""

    def after_trial(self, *ended: Any) -> None:
        """Optuna's own would stop an `optimize` loop here; `StudySearcher` ends the sweep at the first repetition."""


class OneThreadGP(GPSampler):
    """A Gaussian process a metric, fitted on one thread: its tensors are too small to share, and trials need the rest.

    It is for short sweeps: with three metrics, a constraint and four parameters an ask took 1 s after 20 trials, 10 s
    after 100 and a minute after 300, on one busy core, and nothing else of the sweep goes on meanwhile. Only the
    parameters that every told trial has are fitted; conditional ones are drawn at random. So is everything where the
    best guess was asked before, which happens at the bounds: the same network would be trained twice.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            guess = super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)
        others = (other for other in study.get_trials(deepcopy=False) if other.number != trial.number)
        return {} if any(guess.items() <= other.params.items() for other in others) else guess


def _gp(seed: int, startup: int) -> BaseSampler:
    return OneThreadGP(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": BoundedTPE,
    "nsga2": lambda seed, startup: NSGAIISampler(seed=seed, population_size=max(startup, LEAST_POPULATION)),
    "nsga3": lambda seed, startup: NSGAIIISampler(seed=seed, population_size=max(startup, LEAST_POPULATION)),
    "gp": _gp,
    "random": lambda seed, startup: RandomSampler(seed=seed),
    "grid": lambda seed, startup: GridSampler(seed=seed),
}


def seeded(name: str, seed: int, startup: int) -> Callable[[int], BaseSampler]:
    """What makes a sampler for a study that holds a number of trials already.

    A sampler begins its random numbers anew in every process: under the same seed a resumed sweep would draw the
    parameters of its first trials again.

    Args:
        name: of `SAMPLERS`.
        startup: trials drawn at random before a model is asked.
    """

    def make(trials: int) -> BaseSampler:
        own = int(np.random.SeedSequence([seed, trials]).generate_state(1)[0]) if trials else seed
        return SAMPLERS[name](own, startup)

    return make


def check_sampler(sampler: str, space: Space, defaults: Flat, overrides: Flat) -> None:
    """A grid needs steps: draws one variant.

    Raises:
        SpaceError: the space suggests a float without `step`, or fails otherwise.
    """
    if sampler == "grid":
        space.sample(optuna.create_study(sampler=GridSampler(seed=0)).ask(), defaults, overrides)
