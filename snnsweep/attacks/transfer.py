"""Adversarial points of one model, tried on another."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snnsweep.attacks import losses
from snnsweep.attacks.apgd import APGD
from snnsweep.attacks.base import Attack, attacked, entrance, frozen
from snnsweep.attacks.oracle import Oracle
from snnsweep.attacks.threat import Threat


@dataclass(frozen=True)
class Transfer(Attack):
    """An attack that follows another model's gradient; every point on its way is judged on the target.

    Where it beats the attacks on the target itself, their gradient is bad (Athalye et al., 2018, arXiv 1802.00420).
    It needs a model and not a name, and is therefore in no registry: a suite builds it where the source is at hand.

    Attributes:
        source: a classifier of the same inputs: another seed, a sibling variant or the ANN twin. For an `encoded`
            threat its `forward_encoded` has to take the target's code.
        attack: how its gradient is followed.
    """

    source: nn.Module = field(repr=False)
    attack: Attack = field(default_factory=APGD)

    @property
    def per_sample(self) -> bool:
        return self.attack.per_sample

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        source: Any = self.source
        with attacked(source), frozen(source):
            random, loss = getattr(source, "random", False), losses.get(self.attack.loss)
            relay = _Relay(entrance(source, threat), x, y, threat, loss, random, batch=oracle.batch)
            relay.leaves = oracle.leaves
            relay.target = oracle
            return self.attack.propose(relay, x, y, threat, rng)


class _Relay(Oracle):
    """The source's losses and gradients; every point, and every question for logits, goes to the target."""

    target: Oracle

    @property
    def standing(self) -> Tensor:
        return self.target.standing

    def logits(self, adv: Tensor, samples: Tensor | None = None) -> Tensor:
        return self.target.logits(adv, samples)

    def loss_and_gradient(self, adv: Tensor) -> tuple[Tensor, Tensor]:
        if not self.leaves:
            self.target.logits(adv)
        elif len(samples := self.standing):
            self.target.logits(self._threat.take(adv, samples), samples)
        return super().loss_and_gradient(adv)
