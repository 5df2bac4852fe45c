"""Many trials in one process: those of one architecture train as one model where a measured probe says that it pays."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged
from snnsweep.evaluation import Evaluation, evaluate
from snnsweep.result import Result
from snnsweep.training.packed import Pack, key_of, unpackable
from snnsweep.training.packed_probe import pays

# The trial's place among the configs, and the metrics of its epoch.
OnEpoch = Callable[[int, dict[str, float]], None]


def evaluate_many(
    configs: Sequence[TrialConfig], data_dir: Path | str | None = None, on_epoch: OnEpoch | None = None
) -> list[Result]:
    """`evaluate` for each of the configs, in their order, and faster where trials can be packed and that pays.

    Configs that differ in thresholds, taus, surrogate widths, rates, decays, schedules, epochs, seeds and what is
    measured at the end can share a pack; attacks and measurements are on ordinary models, one after the other. A result
    that was trained in a pack says so in its warnings: by itself it would differ in rounding, which training makes
    larger. `time/train_s` is then the trial's share of the pack's time.

    Raises:
        MissingData, UserError: as `evaluate`.
    """
    groups: dict[object, list[int]] = {}
    for place, config in enumerate(configs):
        groups.setdefault(key_of(config), []).append(place)
    results: dict[int, Result] = {}
    for places in groups.values():
        results |= _evaluated({place: configs[place] for place in places}, data_dir, on_epoch or (lambda *said: None))
    return [results[place] for place in range(len(configs))]


def _evaluated(configs: dict[int, TrialConfig], data_dir: Path | str | None, on_epoch: OnEpoch) -> dict[int, Result]:
    """Of one architecture."""
    given = list(configs.values())
    first = Evaluation(given[0], data_dir) if len(given) > 1 else None
    if first is None or unpackable(given, first.data.spec) or not pays(given, first.data):
        return {place: evaluate(config, data_dir, partial(on_epoch, place)) for place, config in configs.items()}
    return _Together(configs, first, on_epoch).run()


class _Together:
    """The trials of one pack."""

    def __init__(self, configs: dict[int, TrialConfig], first: Evaluation, on_epoch: OnEpoch):
        self.on_epoch = on_epoch
        self.trials: dict[int, Evaluation] = {}
        self.states: dict[int, list[torch.Tensor]] = {}
        self.device = first.device
        for place, config in configs.items():
            self.trials[place] = Evaluation(config, shared=first.data)
            self.states[place] = self._random_state()
        self.results: dict[int, Result] = {}

    def run(self) -> dict[int, Result]:
        self.places = list(self.trials)
        pack = Pack([self.trials[place].trainer for place in self.places])
        while self.places:
            start = time.perf_counter()
            outcomes = pack.epoch()
            seconds = (time.perf_counter() - start) / len(outcomes)
            for place, outcome in zip(list(self.places), outcomes, strict=True):
                if self._ended(place, outcome, seconds):
                    member = self.places.index(place)
                    del self.places[member]
                    if self.places:
                        pack.drop(member)
        return self.results

    def _ended(self, place: int, outcome: dict[str, float] | Diverged, seconds: float) -> bool:
        """Keeps what an epoch gave; whether it was the trial's last one."""
        trial = self.trials[place]
        if isinstance(outcome, Diverged):
            self.results[place] = trial.failed(f"Diverged: {outcome}")
            return True
        self.on_epoch(place, trial.after_epoch(outcome, seconds))
        if not trial.trained:
            return False
        self._random_state(self.states[place])  # what the trial would find alone, for training draws nothing
        self.results[place] = trial.result()
        return True

    def _random_state(self, wanted: list[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Of torch's generators; sets them to `wanted`."""
        cuda = self.device.type == "cuda"
        if wanted is not None:
            torch.set_rng_state(wanted[0])
            if cuda:
                torch.cuda.set_rng_state(wanted[1], self.device)
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if cuda else [])]
