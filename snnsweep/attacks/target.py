"""A model with the samples on which it is attacked, many at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snnsweep.attacks.base import Attack, Outcome, attacked, predict
from snnsweep.attacks.rules import Rule, per_sample
from snnsweep.attacks.threat import Threat

# How many samples go through an attack together: what it keeps of them fits into memory, and of so many passes only the
# last ones are small. By the images alone, since a query attack draws for all of them at once.
POOL, POOLED = 256, 2**21  # at least; numbers in their images

Found = TypeVar("Found")


@dataclass(frozen=True)
class Target:
    """Attributes:
    x, y: images [n, C, H, W] in [0, 1], or events [n, T, C, H, W], and their labels [n].
    seed: of every attack's own stream.
    batch: samples that a rule or an attack which is not `per_sample` sees together.
    at_once: samples in one pass of the model in every other attack; None for `batch`. Either is halved for an attack
        where memory does not suffice.
    leaves: a sample leaves an attack when it falls, where that changes no verdict.
    guide: as of `Attack.run`.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int
    batch: int
    at_once: int | None = None
    leaves: bool = True
    guide: nn.Module | None = None

    def correct(self) -> Tensor:
        """bool [n]: classified right without an attack."""
        random = getattr(self.model, "random", False)
        with attacked(self.model):
            size = self.at_once or self.batch
            return within_memory(lambda batch: predict(self.model, self.x, random, batch), size) == self.y

    def attack(self, attack: Attack, rule: Rule, chosen: Tensor) -> tuple[list[Tensor], list[Outcome]]:
        """The parts into which the samples `chosen` (indices) were divided, and how each ended."""
        alone = attack.per_sample and per_sample(rule)
        run = partial(self._attack, attack, rule, chosen, alone)
        return within_memory(run, self.at_once or self.batch if alone else self.batch)

    def _attack(
        self, attack: Attack, rule: Rule, chosen: Tensor, alone: bool, batch: int
    ) -> tuple[list[Tensor], list[Outcome]]:
        rng, size = torch.Generator().manual_seed(self.seed), batch
        if alone:
            size = max(POOL, POOLED // self.x[0].numel())
        settings: dict[str, Any] = {"batch": batch, "leaves": alone and self.leaves, "guide": self.guide}
        parts, ends = [part for part in chosen.split(size) if len(part)], []
        for part in parts:
            with rule(self.guide or self.model):
                ends.append(attack.run(self.model, self.x[part], self.y[part], self.threat, rng, **settings))
        return parts, ends


def within_memory(attempt: Callable[[int], Found], batch: int) -> Found:
    """What `attempt(batch)` gives; where memory runs out, with half of the batch, and so on down to one sample."""
    while True:
        try:
            return attempt(batch)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch = -(-batch // 2)  # outside the except, whose traceback holds the tensors that filled the memory
