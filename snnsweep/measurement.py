"""A trained model, attacked and measured on the validation split; the test split stays untouched."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from snnsweep import neurons
from snnsweep.attacks import Threat, suites
from snnsweep.attacks.base import attacked, predict
from snnsweep.attacks.rules import Rule
from snnsweep.attacks.rules.fixed import SIGMOID
from snnsweep.attacks.suites import Suite, SuiteOutcome
from snnsweep.config import TrialConfig
from snnsweep.data import Data
from snnsweep.metrics import activity, probes, sparsity
from snnsweep.metrics.audit import Audit, Evidence, audit
from snnsweep.metrics.checks import VANISHED
from snnsweep.models import Classifier
from snnsweep.models.folding import folded
from snnsweep.result import OBJECTIVES, PER_EPS

CPU_IMAGE_STEPS = 256  # images times steps in one pass of an attack, where a core is fastest (docs/performance.md)
Gradients = Literal["exact", "fast"]


@dataclass(frozen=True)
class Measured:
    """Attributes:
    metrics: by name, see `result.OBJECTIVES`.
    warnings: what the reader of the figures has to know.
    audit: whether the figures can be believed.
    """

    metrics: dict[str, float]
    warnings: tuple[str, ...]
    audit: Audit

    @property
    def cause(self) -> str:
        """Why the figures cannot be believed, else ""."""
        return self.audit.cause


class Measurement:
    """Attacks and measures one model as its config says.

    Args:
        data: the splits, on the model's device.
        sources: models by name, on that device too, whose adversarial points a suite that transfers tries.
    """

    def __init__(
        self, model: Classifier, config: TrialConfig, data: Data, sources: Mapping[str, nn.Module] | None = None
    ):
        self.model, self.config, self.data, self.sources = model, config, data, sources
        self.batch = config.data.batch_size
        # It changes no verdict. On a GPU it stays the one that the trial's memory was measured with.
        on_cpu = data.validation.y.device.type == "cpu"
        self.at_once = max(1, CPU_IMAGE_STEPS // config.encoder.time_steps) if on_cpu else None

    def correct(self, most: int | None = None) -> Tensor:
        """bool [n]: which validation images, or the first `most` of them, are classified right."""
        split, y = self.data.validation, self.data.validation.y[:most]
        with attacked(self.model):
            parts = torch.arange(len(y), device=y.device).split(self.batch)
            answers = [predict(self.model, split.images(part), self.model.random) for part in parts]
        return torch.cat(answers) == y

    def light(
        self, suite: str, samples: int, wanted: Iterable[str], gradients: Gradients = "exact"
    ) -> dict[str, float]:
        """Robustness under another suite on a few samples, sparsity and activity: a look at a model that still trains.

        Neither audited nor warned of. Where more than 1 % of the samples have no gradient under any rule that attacks,
        nothing was attacked there, and no robust accuracy is given.

        Args:
            wanted: names of metrics; what is not of a family of theirs is not measured.
            gradients: `fast` asks on the way a copy with folded batch norms; the model itself judges what is found.
        """
        x, y = self._attacked(samples)
        families = {name.partition("/")[0] for name in wanted}
        found: dict[str, float] = {}
        if "gradient_sparsity" in families:
            found |= self._sparsity(x, y)
        if "activity" in families:
            found |= activity.measure(self.model, x, self.batch)
        attacks = suites.get(suite)()
        if "robust_accuracy" in families and self.without_direction(x, y, attacks.rules(self.model)) <= VANISHED:
            guide = folded(self.model, x[:1]) if gradients == "fast" else None
            found |= _robustness(self._suite(x, y, attacks, guide))
        return found

    def _attacked(self, samples: int) -> tuple[Tensor, Tensor]:
        split = self.data.validation
        return split.images(slice(0, samples)), split.y[:samples]

    def _suite(self, x: Tensor, y: Tensor, suite: Suite, guide: nn.Module | None = None) -> SuiteOutcome:
        threat, seed, at_once = Threat.of(self.config.threat), self.config.seed, self.at_once
        return suites.run(self.model, x, y, suite, threat, seed, self.batch, self.sources, guide=guide, at_once=at_once)

    def run(self) -> Measured:
        """Everything: accuracies, robustness under the suite, sparsity, activity and cost."""
        start = time.perf_counter()
        x, y = self._attacked(self.config.attack.samples)
        suite, threat = suites.get(self.config.attack.suite)(), Threat.of(self.config.threat)
        outcome = self._suite(x, y, suite)
        metrics = {**share("clean_accuracy", self.correct()), **_robustness(outcome)}
        if self.model.random:
            metrics |= share("robust_accuracy/unattacked", self._unattacked(x, y, outcome.correct, len(outcome.fooled)))
        metrics.update(self._sparsity(x, y))
        probed = probes.run(
            self.model, x[: probes.PROBED], y[: probes.PROBED], suite, threat, self.config.seed, self.batch
        )
        metrics |= _over_eps(probed)
        found = audit(
            Evidence(
                model=self.model,
                suite=suite,
                outcome=outcome,
                probes=probed,
                exact=self._exact(),
                chance=self._chance(),
                vanished=self.without_direction(x, y, suite.rules(self.model)),
                vanished_training=metrics["gradient_sparsity/vanished_share"],
                samples=len(y),
            )
        )
        metrics |= found.metrics
        metrics["time/attack_s"] = time.perf_counter() - start
        metrics.update(activity.measure(self.model, x, self.batch))
        return Measured(metrics, (*self.warnings(metrics), *found.warnings), found)

    def _unattacked(self, x: Tensor, y: Tensor, correct: Tensor, times: int) -> Tensor:
        """bool [n]: right, and right again in as many fresh draws as there are attacks: what noise alone leaves."""
        still = correct.clone()
        with attacked(self.model):
            for _ in range(times):
                still &= predict(self.model, x, True, self.batch) == y
        return still

    def without_direction(self, x: Tensor, y: Tensor, rules: set[Rule]) -> float:
        """Share of samples whose gradient vanishes under every rule that attacked them."""
        lost = torch.ones_like(y, dtype=torch.bool)
        for rule in rules:
            with rule(self.model):
                lost &= sparsity.vanished(self.model, x, y, self.config.threat.space, self.batch)
        return float(lost.double().mean())

    def _sparsity(self, x: Tensor, y: Tensor) -> dict[str, float]:
        space = self.config.threat.space
        first = sparsity.measure(self.model, x, y, space, self.batch)
        with suites.SECOND_RULE(self.model):
            second = sparsity.measure(self.model, x, y, space, self.batch)
        named = {f"gradient_sparsity/{name}".rstrip("/"): value for name, value in first.items()}
        again = {name: value for name, value in second.items() if f"gradient_sparsity/second_rule/{name}" in OBJECTIVES}
        again[""] = second[""]
        return named | {f"gradient_sparsity/second_rule/{name}".rstrip("/"): v for name, v in again.items()}

    def warnings(self, metrics: dict[str, float]) -> list[str]:
        """What a reader has to know beside the audit."""
        chance, clean = self._chance(), metrics["clean_accuracy"]
        silent = metrics.get("activity/silent_share", 0.0)
        second = suites.SECOND_RULE.of(self.model)
        found = {
            f"clean accuracy {clean:.3f} is near chance ({chance:.3f}): robustness says nothing": (
                metrics["clean_accuracy/low"] <= chance
            ),
            f"{silent:.0%} of the spiking layers never fire": silent > 0,
            f"the second rule is {second.family} {second.alpha:g} here, since the training surrogate is like the one "
            "that other trials are attacked with": second != SIGMOID,
            "the network draws fresh noise: answers are means of ten draws, the attacks' gradients too; without any "
            f"attack {metrics.get('robust_accuracy/unattacked', 1.0):.3f} would stand": self.model.random,
            "cuda kernels are not bit-reproducible": self.data.validation.y.device.type == "cuda",
        }
        return [text for text, holds in found.items() if holds]

    def _chance(self) -> float:
        """What answering the commonest class would score on the validation split."""
        y = self.data.validation.y
        return float(y.bincount().max() / len(y))

    def _exact(self) -> bool:
        """Whether the model is an ANN twin, whose gradient needs no surrogate: its encoder's code neither."""
        parts = list(self.model.modules())
        spiking = any(isinstance(part, neurons.SpikingNeuron) for part in parts)
        coded = self.config.threat.space == "pixel" and any(getattr(part, "binary", False) for part in parts)
        return not spiking and not coded and any(getattr(part, "exact", False) for part in parts)


def _robustness(outcome: SuiteOutcome) -> dict[str, float]:
    metrics = share("robust_accuracy", outcome.standing())
    metrics["robust_accuracy/clean"] = float(outcome.correct.double().mean())
    for label in outcome.fooled:
        metrics |= share(f"robust_accuracy/{outcome.figure(label)}", outcome.standing(label))
    return metrics


def _over_eps(probed: probes.Probes) -> dict[str, float]:
    """Accuracy over eps, as the audit asked for it; nothing where it did not."""
    if not probed.grid:
        return {}
    metrics = share(f"{PER_EPS}0", probed.correct)
    for eps, stands in probed.grid.items():
        metrics |= share(f"{PER_EPS}{eps / probed.eps:g}", stands)
    return metrics


def share(name: str, hits: Tensor) -> dict[str, float]:
    """A share with its n and its 95 % Wilson interval."""
    count, total = int(hits.sum()), len(hits)
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return {name: count / total, f"{name}/n": total, f"{name}/low": interval.low, f"{name}/high": interval.high}
