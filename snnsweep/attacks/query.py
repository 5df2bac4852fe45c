"""Attacks that need no gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsweep.attacks import register
from snnsweep.attacks.base import Attack, Oracle, Threat


@register("noise")
@dataclass(frozen=True)
class Noise(Attack):
    """Uniform noise in the ball: the best of `draws` random points. A floor under every other attack.

    Attributes:
        draws: points tried, at least 1.
    """

    draws: int = 10

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        for _ in range(self.draws - 1):
            oracle.logits(threat.random_start(x, rng))
        return threat.random_start(x, rng)
