"""What a trial does at its largest, and how much memory that takes: on a GPU, or of this process."""

import ctypes
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnsweep.attacks import Threat, suites
from snnsweep.attacks.base import Attack
from snnsweep.attacks.suites import Suite
from snnsweep.config import TrialConfig
from snnsweep.evaluation import Evaluation
from snnsweep.metrics import activity, probes, sparsity

REPEATS = ("steps", "queries", "draws")  # of an attack: more of them take more time, not more memory
PROCESS = Path("/proc/self")
# What decides the memory of a variant.
LARGE = ("data.batch_size", "encoder.time_steps", "model.depth", "model.width")
OTHERS = (
    *("data.name", "data.path", "encoder.name", "neuron.name", "model.name", "model.residual", "model.norm"),
    *("model.pooling", "model.stem", "train.objective", "train.optimizer", "train.precision"),
    *("train.pack_spikes", "attack.suite"),
)


def largest(configs: Iterable[TrialConfig], count: int) -> list[TrialConfig]:
    """At most so many variants of different memory: the largest ones by batch, time steps, depth and width."""

    def size(config: TrialConfig) -> float:
        flat, product = config.to_flat(), 1.0
        for key in LARGE:
            product *= flat[key]
        return product

    different: dict[Any, TrialConfig] = {}
    for config in configs:
        flat = config.to_flat()
        different.setdefault(tuple(flat[key] for key in (*LARGE, *OTHERS)), config)
    return sorted(different.values(), key=size, reverse=True)[:count]


def train(trial: Evaluation, images: int) -> None:
    """One training step on a batch of that many."""
    split = trial.data.train
    trial.model.train()
    trial.trainer.step(split.images(slice(0, images)), split.y[:images])


def attack(trial: Evaluation, images: int) -> None:
    """Two steps of each attack and each measurement, on one batch of at most that many.

    The attack's labels are the model's own answers, so that every sample is attacked.
    """
    config, validation = trial.config, trial.data.validation
    trial.model.eval()
    attacked = validation.images(slice(0, config.attack.samples))  # all of them lie on the device
    x = attacked[:images]
    with torch.no_grad():
        answers = trial.model(x).argmax(1)
    suite, threat = _short(suites.get(config.attack.suite)()), Threat.of(config.threat)
    suites.run(trial.model, x, answers, suite, threat, 0, images)
    probed = slice(0, probes.PROBED)
    probes.run(trial.model, x[probed], answers[probed], suite, threat, 0, images)
    sparsity.measure(trial.model, x, answers, threat.space, images)
    activity.measure(trial.model, x, images)


def _short(suite: Suite) -> Suite:
    return replace(suite, steps=tuple(replace(step, attack=_twice(step.attack)) for step in suite.steps))


def _twice(attack: Attack) -> Attack:
    if not is_dataclass(attack):
        return attack
    found = {field.name: getattr(attack, field.name) for field in fields(attack) if field.name in REPEATS}
    return replace(attack, **{name: min(2, value) for name, value in found.items()})


def at_rest(trial: Evaluation) -> int:
    """Bytes of a trial's tensors between two steps: weights, their gradients, the optimiser's state, the images."""
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _held(trial)}
    return sum(held.values())


def _held(trial: Evaluation) -> Iterator[Tensor]:
    for parameter in trial.model.parameters():
        yield from (parameter, *([] if parameter.grad is None else [parameter.grad]))
    yield from trial.model.buffers()
    for state in trial.trainer.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
    for split in (trial.data.train, trial.data.validation, trial.data.test):
        yield from (split.x, split.y)


def growth(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `run` takes at its peak beside what is in use before; of what runs for the first time also kernels.

    On a GPU those of torch's tensors. On the CPU by how much the process's resident memory grows, which Linux alone
    tells (None elsewhere): what was freed before goes back to the system first, or else it would be taken again unseen.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")  # the peak so far is forgotten
        before = _resident("VmRSS")
        run()
        return max(0, _resident("VmHWM") - before)
    except (OSError, AttributeError):  # no Linux, or another C library
        return None


def _resident(which: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{which}:"))
    return int(line.split()[1]) * 1024
