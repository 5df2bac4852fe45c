"""Attacks that follow the input gradient step by step: one loop and its special cases."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsweep.attacks.base import Attack, Oracle, Threat
from snnsweep.registry import attacks


@attacks.register("pgd")
@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent (Madry et al., 2018): x <- project(x + step * sign(grad)); l2: grad / |grad|.

    Attributes:
        steps: gradient steps, at least 1.
        rel_step: step size as a share of eps, so that one setting serves every eps.
        random_start: begin at a uniform point of the ball.
        decay: of the momentum; 0 is none.
        loss: what it increases.
    """

    steps: int = 10
    rel_step: float = 0.25
    random_start: bool = True
    decay: float = 0.0
    loss: str = "cross_entropy"
    per_sample = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        adv = threat.random_start(x, rng) if self.random_start else x
        momentum = torch.zeros_like(x)
        for _ in range(self.steps):
            direction = oracle.gradient(adv)
            if self.decay:
                direction = momentum = self.decay * momentum + threat.mean_scaled(direction)
            adv = threat.project(adv + threat.step(direction, self.rel_step * threat.eps), x)
        return adv


@attacks.register("fgsm")
@dataclass(frozen=True)
class FGSM(PGD):
    """Fast gradient sign method (Goodfellow et al., 2015): x + eps * sign(grad); PGD in one full step."""

    steps: int = 1
    rel_step: float = 1.0
    random_start: bool = False


@attacks.register("bim")
@dataclass(frozen=True)
class BIM(PGD):
    """Basic iterative method (Kurakin et al., 2017, arXiv 1607.02533): PGD from the clean point itself."""

    random_start: bool = False


@attacks.register("mim")
@dataclass(frozen=True)
class MIM(PGD):
    """Momentum iterative method (Dong et al., 2018, arXiv 1710.06081): g <- decay g + grad / |grad|_1, then a step.

    Its step is eps / steps: `rel_step` goes with the paper's 10 steps, and 1 / steps with another number.
    """

    rel_step: float = 0.1
    random_start: bool = False
    decay: float = 1.0


@attacks.register("rfgsm")
@dataclass(frozen=True)
class RFGSM(Attack):
    """Random step, then FGSM for what is left of eps (Tramer et al., 2018, arXiv 1705.07204, equation 8).

    x' = x + alpha sign(N(0, I)), then x' + (eps - alpha) sign(grad at x').

    Attributes:
        rel_alpha: alpha as a share of eps, in [0, 1]; the paper's half.
        loss: what it increases.
    """

    rel_alpha: float = 0.5
    loss: str = "cross_entropy"
    per_sample = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        alpha = self.rel_alpha * threat.eps
        adv = threat.project(x + threat.step(threat.gaussian(x, rng), alpha), x)
        return adv + threat.step(oracle.gradient(adv), threat.eps - alpha)
