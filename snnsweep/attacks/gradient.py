"""Attacks that follow the input gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsweep.attacks import register
from snnsweep.attacks.base import Attack, Oracle, Threat


@register("pgd")
@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent (Madry et al., 2018): x <- project(x + step * sign(grad)).

    Attributes:
        steps: gradient steps, at least 1.
        rel_step: step size as a share of eps, so that one setting serves every eps.
        random_start: begin at a uniform point of the ball.
    """

    steps: int = 10
    rel_step: float = 0.25
    random_start: bool = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        adv = threat.random_start(x, rng) if self.random_start else x
        for _ in range(self.steps):
            adv = threat.project(adv + self.rel_step * threat.eps * oracle.gradient(adv).sign(), x)
        return adv


@register("fgsm")
@dataclass(frozen=True)
class FGSM(PGD):
    """Fast gradient sign method (Goodfellow et al., 2015): x + eps * sign(grad); PGD in one full step."""

    steps: int = 1
    rel_step: float = 1.0
    random_start: bool = False
