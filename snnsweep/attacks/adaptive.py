"""PGD whose step in every element follows the steadiness of that element's gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsweep.attacks.apgd import checkpoints
from snnsweep.attacks.base import Attack, Oracle, Threat
from snnsweep.registry import attacks

FLOOR = 1e-12  # of the divisor, where an element never had a gradient


@attacks.register("sa_pgd")
@dataclass(frozen=True)
class SAPGD(Attack):
    """Stable adaptive PGD (Wang et al., 2025, arXiv 2512.22522), for the gradients of spiking networks.

    m <- decay m + g / mean|g|, v <- square_decay v + g^2 / mean(g^2), means over each sample;
    x <- P(x + clip(eta m / sqrt(v), -eta, eta)), from a random point that is moved by eps in its furthest element.
    eta is eps, halved for every sample at each of `checkpoints`. A sample without any gradient adds nothing to m and
    v. In l2, which the paper leaves out, the step has the length eta along m: m / sqrt(v) tends to signs, which are the
    steepest way in linf alone.

    Attributes:
        steps: gradient steps, at least 1.
        decay: of the mean gradient.
        square_decay: of the mean square.
        loss: what it increases.
    """

    steps: int = 100
    decay: float = 0.5
    square_decay: float = 0.8
    loss: str = "cross_entropy"
    per_sample = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        adv = threat.stretched_start(x, rng)
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        eta, halvings = threat.eps, checkpoints(self.steps)
        for k in range(1, self.steps + 1):
            # g^2 / mean(g^2) is the same for g over its own mean, whose squares do not underflow.
            grad = threat.mean_scaled(oracle.gradient(adv))
            mean = self.decay * mean + grad
            square = self.square_decay * square + threat.mean_scaled(grad.square())
            adaptive = (eta * mean / (square.sqrt() + FLOOR)).clamp(-eta, eta)
            step = adaptive if threat.norm == "linf" else threat.step(mean, eta)
            adv = threat.project(adv + step, x)
            eta = eta / 2 if k in halvings else eta
        return adv
