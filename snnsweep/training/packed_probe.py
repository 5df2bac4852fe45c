"""Does packing pay? A few steps of a pack against as many of one trial alone, on this device, now."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from snnsweep import models
from snnsweep.config import TrialConfig
from snnsweep.data import Data, batches_of_many
from snnsweep.training.loop import Trainer
from snnsweep.training.packed import Pack, key_of

WORTH = 1.1  # from here on a pack is used: below it, a load that changes decides and not the pack
ROUNDS = 5

_measured: dict[object, float] = {}


def speedup(configs: Sequence[TrialConfig], data: Data) -> float:
    """K times the seconds of a step alone, over the seconds of a pack's step; above 1 the pack is faster.

    Measured on models of its own, one batch, median of `ROUNDS` pairs after a warm-up; at most once in a process for
    an architecture, a number of members, a device and a number of threads. 0 where the pack does not fit into memory.
    torch's generators stay as they were.

    Args:
        configs: of K trials that can be packed.
        data: theirs, on the device that counts.
    """
    device = data.train.x.device
    place = (key_of(configs[0]), len(configs), str(device), torch.get_num_threads())
    if place not in _measured:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            _measured[place] = _measure(configs, data)
    return _measured[place]


def pays(configs: Sequence[TrialConfig], data: Data) -> bool:
    """Whether these trials, which can be packed, train faster as a pack, by more than a tenth."""
    return len(configs) > 1 and speedup(configs, data) > WORTH


def _measure(configs: Sequence[TrialConfig], data: Data) -> float:
    device, first = data.train.x.device, configs[0]
    rngs = [torch.Generator().manual_seed(config.seed) for config in configs]
    x, y = next(iter(batches_of_many(data.train, first.data.batch_size, rngs, first.data.augment)))
    try:
        alone, *members = (_trainer(config, data) for config in (first, *configs))
        pack = Pack(members)
        alone.model.train()
        ratios = [
            len(configs) * _seconds(lambda: alone.step(x[0], y[0]), device) / _seconds(lambda: pack.step(x, y), device)
            for _ in range(ROUNDS + 1)
        ]
    except torch.OutOfMemoryError:
        return 0.0
    return statistics.median(ratios[1:])


def _trainer(config: TrialConfig, data: Data) -> Trainer:
    return Trainer(models.build(config, data.spec).to(data.train.x.device), config, data.train)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _drain(device)
    start = time.perf_counter()
    run()
    _drain(device)
    return time.perf_counter() - start


def _drain(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
