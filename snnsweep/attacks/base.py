"""What every attack shares: the judge of its end, and the model left as it was.

An attack only proposes. Each tensor for which it asks the model's logits or gradient is judged on the way; what
counts in the end is a fresh forward pass over the kept adversarial batch, made by `Attack.run`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnsweep.attacks import losses
from snnsweep.attacks.oracle import EOT, Forward, Oracle
from snnsweep.attacks.threat import Threat

DRAWS = 10  # passes whose logits are averaged where a model answers with fresh noise


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    adversarial: the batch, in the threat's space, inside ball and box.
    success: bool [N]; the model misclassifies that very tensor in a fresh forward pass.
    rescued: bool [N]; the attack's own last point does not fool the model, an earlier one did and stands in its place.
        Never of a random model.
    lost: bool [N]; a point fooled the model on the way, and the same point does not in the fresh forward pass: the
        model's answers are not its own. Never of a random model.
    losses: [points, N], the attack's own loss at each point whose gradient it asked for, in order; None of an attack
        without gradients.
    """

    adversarial: Tensor
    success: Tensor
    rescued: Tensor
    lost: Tensor
    losses: Tensor | None = None


class Attack(ABC):
    """Base of all attacks; a subclass is a frozen dataclass of its settings with `propose`.

    Attributes:
        loss: what a gradient attack increases, by its name in `losses.LOSSES`.
    """

    loss: str = "cross_entropy"

    @abstractmethod
    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        """The attack's last point, of x's shape. Points that it asked the oracle about are judged already."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        """The adversarial batch: of x's shape for a `pixel` threat, [T, N, C, H, W] for an `encoded` one."""
        return self.run(model, x, y, threat, rng).adversarial

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator, eot: int = EOT
    ) -> Outcome:
        """Attacks images x [N, C, H, W], or event frames [N, T, C, H, W], in [0, 1] with labels y [N] in eval mode.

        Where the model answers with fresh randomness, a lucky point proves nothing: there the attack's last point
        is judged, by the mean logits of ten passes, and gradients are means of `eot` passes.
        """
        random = getattr(model, "random", False)
        with attacked(model):
            forward, start = entrance(model, threat), encoded(model, x, threat)
            oracle = Oracle(forward, start, y, threat, losses.get(self.loss), random, eot)
            # A ball of one point holds nothing to search.
            last = self.propose(oracle, start, y, threat, rng) if threat.eps > 0 else start
            last = threat.project(last.detach(), start)
            earlier, right = oracle.fooled, torch.zeros_like(oracle.fooled)
            if not random:
                right = (oracle.logits(last).argmax(1) == y) | ~threat.allows(last, start)
                last = threat.pick(oracle.fooled, oracle.found, last)
            success = (predict(forward, last, random) != y) & threat.allows(last, start)
            return Outcome(
                adversarial=last,
                success=success,
                rescued=earlier & right & success,
                lost=earlier & ~success,
                losses=torch.stack(oracle.losses) if oracle.losses else None,
            )


@torch.no_grad()
def predict(forward: Forward, x: Tensor, random: bool) -> Tensor:
    """The class [N] of each input; of the mean logits of ten passes where every pass draws fresh noise."""
    logits = forward(x)
    for _ in range(DRAWS - 1 if random else 0):
        logits = logits + forward(x)
    return logits.argmax(1)


def entrance(model: Any, threat: Threat) -> Forward:
    """From what the threat may change to logits [N, classes]."""
    forward: Forward = model if threat.space == "pixel" else model.forward_encoded
    return forward


@torch.no_grad()
def encoded(model: Any, x: Tensor, threat: Threat) -> Tensor:
    """The clean images as the threat sees them: themselves, or their code [T, N, C, H, W]."""
    return x.detach() if threat.space == "pixel" else model.encode(x).detach().contiguous()


@contextmanager
def attacked(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every mode and buffer is as it was, and no parameter has a new gradient."""
    modes = [(module, module.training) for module in model.modules()]
    owned = [(owner, *named) for owner in model.modules() for named in owner.named_buffers(recurse=False)]
    buffers = [(owner, name, buffer, buffer.clone()) for owner, name, buffer in owned]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for owner, name, buffer, before in buffers:
                setattr(owner, name, buffer.copy_(before))
