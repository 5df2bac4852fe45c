"""What a trial costs, from measured steps of an untrained model: nothing is trained that is kept."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from snnsweep import data
from snnsweep.attacks import Threat, suites
from snnsweep.config import TrialConfig
from snnsweep.evaluation import Evaluation, device_of, looked_at
from snnsweep.machine import hardware
from snnsweep.metrics import probes, sparsity
from snnsweep.sweep import footprint
from snnsweep.sweep.preflight import space_works
from snnsweep.sweep.space import SMOKE, Space

MEASURED = 4  # variants that are built and timed, at most
ENOUGH_S = 90  # after that no further one is begun
PASS_S = 0.25  # a forward pass that is timed takes about that long, or is of the whole batch
WEIGHED = 32  # images, at least, with which memory is measured, or the whole batch


@dataclass(frozen=True)
class Cost:
    """Attributes:
    parameters: trainable numbers.
    train_s, attack_s: seconds of a whole trial's training and of its attacks and measurements.
    """

    parameters: int
    train_s: float
    attack_s: float


def estimate(config: TrialConfig, data_dir: Path) -> Cost:
    """Builds the variant, takes a few training steps and attacks a few images, and scales up.

    The attack's labels are the model's own answers, so that every sample is attacked, and to the end: an upper bound.
    """
    trial = Evaluation(config, data_dir)
    split, images = trial.data.train, len(trial.data.validation)
    few, batch = _affordable(trial), min(config.data.batch_size, len(split))
    x, y = split.images(slice(0, few)), split.y[:few]
    trial.model.train()
    trial.trainer.step(x, y)
    step_s = _scaled(lambda n: _seconds(lambda: footprint.train(trial, n), trial.device), few, batch)
    trial.model.eval()
    with torch.no_grad():
        answers = trial.model(x).argmax(1)
        forward_s = _seconds(lambda: trial.model(x), trial.device)
    suite, threat = suites.get(config.attack.suite)(), Threat.of(config.threat)
    whole = partial(suites.run, trial.model, x, answers, suite, threat, 0, few, leaves=False)
    suite_s = _seconds(whole, trial.device)
    probes_s = _seconds(lambda: probes.run(trial.model, x, answers, suite, threat, 0, few), trial.device)
    measure_s = _seconds(lambda: sparsity.measure(trial.model, x, answers, threat.space, few), trial.device)
    samples, validation_s = min(config.attack.samples, images), forward_s * images / few
    look_s = forward_s * min(images, looked_at(len(split))) / few
    return Cost(
        parameters=sum(p.numel() for p in trial.model.parameters() if p.requires_grad),
        train_s=config.train.epochs * (step_s * max(1, len(split) // batch) + look_s),
        attack_s=((suite_s + 2 * measure_s) * samples + probes_s * min(probes.PROBED, samples)) / few + validation_s,
    )


def _affordable(trial: Evaluation) -> int:
    """Images of a batch that are timed: two at least, for the batch norms."""
    pair = trial.data.train.images(slice(0, 2))
    trial.model.eval()
    with torch.no_grad():
        trial.model(pair)
        pair_s = _seconds(lambda: trial.model(pair), trial.device)
    return min(len(trial.data.train), max(2, min(trial.config.data.batch_size, int(2 * PASS_S / pair_s))))


def _scaled(measure: Callable[[int], float], few: int, batch: int) -> float:
    """measure(batch), from a few images and half of them: what an optimiser does is done once a batch."""
    if few >= batch:
        return measure(batch)
    half = max(1, few // 2) if few > 2 else few + 1
    first, second = measure(half), measure(few)
    return max(second, second + (second - first) / (few - half) * (batch - few))


@dataclass(frozen=True)
class Memory:
    """What one trial needs at its peak beside Python, its libraries and a GPU's context.

    Attributes:
        variant: the largest of those sampled.
        train_bytes, attack_bytes: in a training step, and in the attacks and measurements: the weights with what the
            optimiser keeps, the images, and what comes on top. None where the system does not tell.
        images: with so many at once it was measured, and scaled up where a batch has more.
    """

    variant: dict[str, Any]
    train_bytes: int | None
    attack_bytes: int | None
    images: int


def weigh(config: TrialConfig, data_dir: Path) -> Memory:
    """Builds the variant, and takes a step and a short attack while the memory is watched."""
    trial = Evaluation(config, data_dir)
    batch = min(config.data.batch_size, len(trial.data.train))
    most = min(batch, config.attack.samples, len(trial.data.validation))
    few = min(batch, max(_affordable(trial), WEIGHED))

    def peak(work: Callable[[Evaluation, int], None], whole: int) -> int | None:
        def growth(images: int) -> int | None:
            return footprint.growth(lambda: work(trial, images), trial.device)

        if growth(min(few, whole)) is None:  # the first time brings kernels along, and does not count
            return None
        return footprint.at_rest(trial) + round(_scaled(lambda images: growth(images) or 0, few, whole))

    return Memory(config.to_flat(), peak(footprint.train, batch), peak(footprint.attack, most), few)


def check_space(
    source: str,
    trials: int,
    seed: int,
    data_dir: Path | None,
    smoke: bool,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Samples a space, measures some of its variants, and scales up to a sweep.

    Args:
        say: is told what is being measured.

    Returns:
        question, objectives, trials, variants (config and cost each), how many were sampled, the hardware, the memory
        of the largest variant, and hours of one worker: low, median, high.

    Raises:
        UserError: all that is wrong with the space.
    """
    space, folder = Space.read(source), data_dir or data.default_folder()
    configs = space_works(space, seed, {"seed": seed}, SMOKE if smoke else {}, folder)
    variants, since = [], time.monotonic()
    for number, config in enumerate(configs[:MEASURED]):
        if number and time.monotonic() - since > ENOUGH_S:
            break
        say(f"measuring variant {number + 1} of {MEASURED}")
        variants.append((config, estimate(config, folder)))
    say("measuring the memory of the largest variant")
    hours = sorted(trials * (cost.train_s + cost.attack_s) / 3600 for _, cost in variants)
    return {
        "space": space.source,
        "question": space.question,
        "objectives": space.objectives,
        "trials": trials,
        "sampled": len(configs),
        "hardware": hardware(device_of("auto")),
        "variants": [config.to_flat() | asdict(cost) for config, cost in variants],
        "memory": asdict(weigh(footprint.largest(configs, 1)[0], folder)),
        "worker_hours": {"low": hours[0], "median": median(hours), "high": hours[-1]},
    }


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
