"""What an audit's checks judge, and how they say what they found."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor

from snnsweep.attacks.suites import Suite, SuiteOutcome
from snnsweep.metrics.probes import Probes
from snnsweep.models import Classifier
from snnsweep.result import PASS, Check, Verdict

P = 0.01  # a sign is one only where it could hardly be chance
ENOUGH = 50  # samples, for a test of pairs: of fewer, not even a sixth that changes sides would be a sign


@dataclass(frozen=True)
class Evidence:
    """What the checks judge.

    Attributes:
        exact: the model is an ANN twin whose gradient, its encoder's too, needs no surrogate.
        chance: accuracy of answering the commonest class.
        vanished: share of samples without a gradient under every rule that attacked.
        vanished_training: the same, under the training surrogate alone.
        samples: over which these two shares are.
    """

    model: Classifier
    suite: Suite
    outcome: SuiteOutcome
    probes: Probes
    exact: bool
    chance: float
    vanished: float
    vanished_training: float
    samples: int

    @property
    def few(self) -> bool:
        """Whether a test of pairs over the attacked samples could hardly find anything."""
        return len(self.outcome.correct) < ENOUGH

    def cascaded(self, labels: Iterable[str]) -> bool:
        """Whether one of these steps attacked only what stood."""
        return any(self.outcome.tried[label].sum() < self.outcome.correct.sum() for label in labels)

    def fooled(self, labels: Iterable[str]) -> Tensor:
        """bool [n]: fooled under any of these steps."""
        return union((self.outcome.fooled[label] for label in labels), self.outcome.correct)


def mcnemar(first: Tensor, second: Tensor) -> tuple[float, float]:
    """What `first` [n] has more than `second` [n], as a share of n, and McNemar's exact two-sided p of the pairs."""
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(alone, alone + other, 0.5).pvalue) if alone + other else 1.0
    return (alone - other) / max(1, len(first)), p


def exceeds(count: int, total: int, share: float) -> bool:
    """Whether `count` of `total` is significantly more than that share: one-sided exact binomial test."""
    return total > 0 and count > share * total and binomtest(count, total, share, "greater").pvalue < P


def judge(
    name: str, value: float, limit: float, source: str, sign: bool, about: str, so: str = "", grave: Verdict = "suspect"
) -> Check:
    """A check that was run.

    Args:
        about: what was measured, true with and without a sign.
        so: what a sign means, said only then.
        grave: the verdict where there is a sign.
    """
    about, verdict = (f"{about}{so}", grave) if sign else (about, PASS)
    return Check(name=name, verdict=verdict, value=value, threshold=limit, source=source, about=about)


def not_run(name: str, limit: float, source: str, why: str) -> Check:
    return Check(name=name, verdict="not run", value=None, threshold=limit, source=source, about=why)


def union(parts: Iterable[Tensor], like: Tensor) -> Tensor:
    found = torch.zeros_like(like)
    for part in parts:
        found |= part
    return found
