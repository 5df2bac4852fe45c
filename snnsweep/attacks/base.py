"""What every attack shares: the judge of its end, and the model left as it was.

An attack only proposes. Each tensor for which it asks the model's logits or gradient is judged on the way; what
counts in the end is a fresh forward pass over the kept adversarial batch, made by `Attack.run`.

The first point that fools the model is the one that is kept, and whatever comes after it changes no verdict. A run may
therefore let samples leave as they fall (`leaves`): its verdicts are those of the whole run, as long as no sample's
logits depend on its neighbours in the batch. Kernels may round by the batch's size, as between any two batch sizes.
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
from snnsweep.models.rest import at_rest
from snnsweep.precision import arithmetic

DRAWS = 10  # passes whose logits are averaged where a model answers with fresh noise


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    adversarial: the batch, in the threat's space, inside ball and box.
    success: bool [N]; the model misclassifies that very tensor in a fresh forward pass.
    rescued: bool [N]; the attack's own last point does not fool the model, an earlier one did and stands in its place.
        Never of a random model, nor where samples leave: the point that fooled the model is then the last one.
    lost: bool [N]; a point fooled the model on the way, and the same point does not in the fresh forward pass: the
        model's answers are not its own. Never of a random model.
    losses: [points, N], the attack's own loss at each point whose gradient it asked for, in order, NaN once a sample
        has left; None of an attack without gradients.
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

    @property
    def per_sample(self) -> bool:
        """Whether what it does to a sample depends on no answer for another one.

        A suite lets samples leave such an attack as they fall, and divides them by memory; any other it runs batch by
        batch to the end. An attack of your own says it by `per_sample = True` in its class.
        """
        return False

    def __init_subclass__(cls, **more: Any) -> None:
        """A subclass with a `propose` of its own is another attack: what its parent says of samples is not of it."""
        super().__init_subclass__(**more)
        if "propose" in vars(cls) and "per_sample" not in vars(cls):
            cls.per_sample = False  # type: ignore[assignment,method-assign]

    @abstractmethod
    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        """The attack's last point, of x's shape. Points that it asked the oracle about are judged already."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        """The adversarial batch: of x's shape for a `pixel` threat, [T, N, C, H, W] for an `encoded` one."""
        return self.run(model, x, y, threat, rng).adversarial

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        rng: torch.Generator,
        eot: int = EOT,
        batch: int | None = None,
        leaves: bool = False,
        guide: nn.Module | None = None,
    ) -> Outcome:
        """Attacks images x [N, C, H, W], or event frames [N, T, C, H, W], in [0, 1] with labels y [N] in eval mode.

        Where the model answers with fresh randomness, a lucky point proves nothing: there the attack's last point
        is judged, by the mean logits of ten passes, and gradients are means of `eot` passes.

        Args:
            batch: samples in one pass of the model; None for all at once.
            leaves: a sample leaves when a point fools the model; not of a random model.
            guide: what is asked on the way, a stand-in in eval mode with the model's encoder; the model judges the end.
        """
        random, asked = getattr(model, "random", False), guide or model
        with attacked(model), frozen(asked):
            start, loss = encoded(model, x, threat), losses.get(self.loss)
            oracle = Oracle(entrance(asked, threat), start, y, threat, loss, random, eot, batch, leaves)
            # A ball of one point holds nothing to search.
            last = self.propose(oracle, start, y, threat, rng) if threat.eps > 0 else start
            last = threat.project(last.detach(), start)
            earlier, right = oracle.fooled, torch.zeros_like(oracle.fooled)
            if not random:
                if not oracle.leaves:
                    right = (oracle.logits(last).argmax(1) == y) | ~threat.allows(last, start)
                last = threat.pick(oracle.fooled, oracle.found, last)
            fresh = predict(entrance(model, threat), last, random, batch, threat.sample_dim)
            success = (fresh != y) & threat.allows(last, start)
            return Outcome(
                adversarial=last,
                success=success,
                rescued=earlier & right & success,
                lost=earlier & ~success,
                losses=torch.stack(oracle.losses) if oracle.losses else None,
            )


@torch.no_grad()
def predict(forward: Forward, x: Tensor, random: bool, batch: int | None = None, dim: int = 0) -> Tensor:
    """The class [N] of each input; of the mean logits of ten passes where every pass draws fresh noise.

    Args:
        batch: samples in one pass; None for all at once.
        dim: of x, which counts samples.
    """
    parts = [sum((forward(part) for _ in range(DRAWS - 1 if random else 0)), forward(part)).argmax(1)
             for part in x.split(batch or max(1, x.shape[dim]), dim)]  # fmt: skip
    return torch.cat(parts)


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
    """`untouched`, and whatever is computed inside is computed in full float32."""
    with untouched(model), arithmetic("fp32"):
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter changes or asks for a gradient inside, so that none is computed and nothing is kept for one."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with at_rest():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
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
