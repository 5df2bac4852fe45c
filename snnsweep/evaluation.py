"""One trial from start to end: build, train, attack, measure. Ray, Optuna and MLflow only wrap this."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from snnsweep import data, models, registry
from snnsweep.attacks import Threat, suites
from snnsweep.attacks.base import attacked, predict
from snnsweep.attacks.rules import Rule
from snnsweep.attacks.suites import SuiteOutcome
from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged, UserError
from snnsweep.metrics import sparsity
from snnsweep.result import OBJECTIVES, Result
from snnsweep.training.loop import Trainer

VANISHED = 0.01  # share of samples without any gradient, under every rule tried, above which a trial is infeasible


def evaluate(
    config: TrialConfig, data_dir: Path | str | None = None, on_epoch: Callable[[dict[str, float]], None] | None = None
) -> Result:
    """Trains, attacks and measures one variant on the validation split; the test split stays untouched.

    Args:
        data_dir: folder of the data sets; by default the environment's SNNSWEEP_DATA, else `data`.
        on_epoch: called after each epoch with its metrics.

    Returns:
        The result; a training that diverged is a `failed` one, with its cause.

    Raises:
        MissingData: the data set is not there.
        UserError: the device is not there.
    """
    trial = Evaluation(config, data_dir)
    while not trial.trained:
        try:
            metrics = trial.epoch()
        except Diverged as error:
            return trial.failed(f"Diverged: {error}")
        if on_epoch:
            on_epoch(metrics)
    return trial.result()


class Evaluation:
    """A trial in steps, for drivers that report and checkpoint between them.

    Attributes:
        history: one dict of metrics for each epoch trained.
    """

    def __init__(self, config: TrialConfig, data_dir: Path | str | None = None):
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device_of(config.device)
        self.data = data.load(config, self.device, Path(data_dir) if data_dir else None)
        self.model = models.build(config).to(self.device)
        self.trainer = Trainer(self.model, config, self.data.train)
        self.history: list[dict[str, float]] = []

    @property
    def trained(self) -> bool:
        return self.trainer.epochs_done >= self.config.train.epochs

    def epoch(self) -> dict[str, float]:
        """Trains one epoch.

        Raises:
            Diverged: the loss or a parameter is not finite.
        """
        start = time.perf_counter()
        metrics = self.trainer.epoch()
        metrics["time/epoch_s"] = time.perf_counter() - start
        metrics["clean_accuracy"] = float(self._correct().double().mean())
        self.history.append(metrics)
        return metrics

    def failed(self, cause: str) -> Result:
        """The result of a trial that ended here, for that cause."""
        return Result(
            status="failed",
            config=self.config,
            epochs=self.trainer.epochs_done,
            cause=cause,
            history=tuple(self.history),
        )

    def result(self) -> Result:
        """Attacks and measures the model as it stands."""
        start = time.perf_counter()
        count = min(self.config.attack.samples, len(self.data.validation))
        x, y = self.data.validation.images(slice(0, count)), self.data.validation.y[:count]
        suite, threat = suites.get(self.config.attack.suite)(), Threat.of(self.config.threat)
        batch = self.config.data.batch_size
        outcome = suites.run(self.model, x, y, suite, threat, self.config.seed, batch)
        metrics = {**_share("clean_accuracy", self._correct()), **_robustness(outcome)}
        metrics.update(self._sparsity(x, y))
        if self.model.random:
            metrics |= _share("robust_accuracy/unattacked", self._unattacked(x, y, outcome.correct, len(suite.steps)))
        rules = suite.rules(self.model, self.config.neuron)
        metrics["audit/vanished_share"] = self._without_direction(x, y, rules)
        metrics["time/train_s"] = sum(epoch["time/epoch_s"] for epoch in self.history)
        metrics["time/attack_s"] = time.perf_counter() - start
        cause = _infeasible(metrics["audit/vanished_share"])
        return Result(
            status="infeasible" if cause else "finished",
            config=self.config,
            metrics=metrics,
            warnings=tuple(self._warnings(metrics, len(rules))),
            epochs=self.trainer.epochs_done,
            cause=cause,
            history=tuple(self.history),
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it."""
        return {"trainer": self.trainer.state_dict(), "history": self.history, "torch_rng": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.history = list(state["history"])
        torch.set_rng_state(state["torch_rng"].cpu())

    def _correct(self) -> Tensor:
        split, batch = self.data.validation, self.config.data.batch_size
        with attacked(self.model):
            parts = torch.arange(len(split), device=self.device).split(batch)
            answers = [predict(self.model, split.images(part), self.model.random) for part in parts]
        return torch.cat(answers) == split.y

    def _unattacked(self, x: Tensor, y: Tensor, correct: Tensor, times: int) -> Tensor:
        """bool [n]: right, and right again in as many fresh draws as there are attacks: what noise alone leaves."""
        still, batch = correct.clone(), self.config.data.batch_size
        with attacked(self.model):
            for _ in range(times):
                still &= torch.cat([predict(self.model, part, True) for part in x.split(batch)]) == y
        return still

    def _without_direction(self, x: Tensor, y: Tensor, rules: set[Rule]) -> float:
        """Share of samples whose gradient vanishes under every rule that attacked them."""
        lost = torch.ones_like(y, dtype=torch.bool)
        for rule in rules:
            with rule(self.model):
                lost &= sparsity.vanished(self.model, x, y, self.config.threat.space, self.config.data.batch_size)
        return float(lost.double().mean())

    def _sparsity(self, x: Tensor, y: Tensor) -> dict[str, float]:
        space, batch = self.config.threat.space, self.config.data.batch_size
        first = sparsity.measure(self.model, x, y, space, batch)
        with suites.SECOND_RULE(self.model):
            second = sparsity.measure(self.model, x, y, space, batch)
        named = {f"gradient_sparsity/{name}".rstrip("/"): value for name, value in first.items()}
        again = {name: value for name, value in second.items() if f"gradient_sparsity/second_rule/{name}" in OBJECTIVES}
        again[""] = second[""]
        return named | {f"gradient_sparsity/second_rule/{name}".rstrip("/"): v for name, v in again.items()}

    def _warnings(self, metrics: dict[str, float], rules: int) -> list[str]:
        """What a reader has to know; a gap between two attacks counts beyond two standard errors."""
        single, steps = metrics.get("robust_accuracy/fgsm", 1.0), metrics.get("robust_accuracy/pgd", 0.0)
        second, noise = (metrics.get(f"robust_accuracy/{name}", 1.0) for name in ("pgd_second_rule", "noise"))
        doubt = 2 * (steps * (1 - steps) / metrics["robust_accuracy/n"]) ** 0.5
        chance, clean = 1 / registry.datasets.get(self.config.data.name).spec.classes, metrics["clean_accuracy"]
        found = {
            f"clean accuracy {clean:.3f} is near chance ({chance:.3f}): robustness says nothing": (
                metrics["clean_accuracy/low"] <= chance
            ),
            f"one step (FGSM, {single:.3f}) is stronger than PGD ({steps:.3f}): a sign of a bad gradient": (
                single < steps - doubt
            ),
            f"noise ({noise:.3f}) is stronger than PGD ({steps:.3f}): a sign of a bad gradient": noise < steps - doubt,
            f"the second gradient rule takes {steps - second:.3f} off PGD: the training surrogate misleads": (
                steps - second > max(0.05, doubt)
            ),
            "one gradient rule only: the robustness may be the attack's failure": rules < 2,
            "the encoder draws fresh noise: answers are means of ten draws, the attacks' gradients of one; without any "
            f"attack {metrics.get('robust_accuracy/unattacked', 1.0):.3f} would stand": self.model.random,
            "cuda kernels are not bit-reproducible": self.device.type == "cuda",
        }
        return [text for text, holds in found.items() if holds]


def _robustness(outcome: SuiteOutcome) -> dict[str, float]:
    metrics = _share("robust_accuracy", outcome.standing())
    metrics["robust_accuracy/clean"] = float(outcome.correct.double().mean())
    for label in outcome.fooled:
        metrics |= _share(f"robust_accuracy/{label}", outcome.standing(label))
    return metrics


def _share(name: str, hits: Tensor) -> dict[str, float]:
    """A share with its n and its 95 % Wilson interval."""
    count, total = int(hits.sum()), len(hits)
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return {name: count / total, f"{name}/n": total, f"{name}/low": interval.low, f"{name}/high": interval.high}


def _infeasible(vanished: float) -> str:
    if vanished <= VANISHED:
        return ""
    return (
        f"the input gradient vanishes for {vanished:.1%} of the samples under every rule that attacked, and no strong "
        "attack that needs no gradient has been tried"
    )


def device_of(name: str) -> torch.device:
    """The torch device of a config's `device`; `auto` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name} is not there; this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device
