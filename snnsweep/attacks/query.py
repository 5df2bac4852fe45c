"""Attacks that need no gradient, and what they share: the best point so far, asked only about samples that stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsweep.attacks.base import Attack, Oracle, Threat
from snnsweep.attacks.losses import margin
from snnsweep.registry import attacks


class Search:
    """The best point of each sample by its margin. A sample that has fallen costs no further pass.

    Attributes:
        best: of x's shape; the clean input until a point was asked about.
    """

    def __init__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat):
        self._oracle, self._y, self._threat = oracle, y, threat
        self.best = x
        self._lead = torch.full(y.shape, -torch.inf, device=y.device)

    @property
    def over(self) -> bool:
        """Whether no sample stands."""
        return not len(self._oracle.standing)

    def offer(self, points: Tensor) -> None:
        """Asks about a point for each sample, of x's shape, and keeps those with a larger margin."""
        samples = self._oracle.standing
        logits = self._oracle.logits(self._threat.take(points, samples), samples)
        lead = torch.full_like(self._lead, -torch.inf).index_copy(0, samples, margin(logits, self._y[samples]).float())
        better = lead > self._lead
        self.best = self._threat.pick(better, points, self.best)
        self._lead = torch.where(better, lead, self._lead)


def stream(rng: torch.Generator) -> torch.Generator:
    """A generator of the attack's own, so that what is drawn after it does not depend on how early it ended."""
    seed = torch.randint(2**62, (), generator=rng, device=rng.device)
    return torch.Generator().manual_seed(int(seed))


@attacks.register("noise")
@dataclass(frozen=True)
class Noise(Attack):
    """Uniform noise in the ball: the best of `draws` random points. A floor under every other attack.

    Attributes:
        draws: points tried, at least 1.
    """

    draws: int = 10
    per_sample = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        search, own = Search(oracle, x, y, threat), stream(rng)
        for draw in range(self.draws):
            if search.over:
                break
            search.offer(self._point(draw, x, threat, own))
        return search.best

    def _point(self, draw: int, x: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        return threat.random_start(x, rng)


@attacks.register("random_search")
@dataclass(frozen=True)
class RandomSearch(Noise):
    """Random search: uniform points of the ball and, every other draw, of its far edge (corners, or the sphere).

    What it finds and a gradient attack missed shows a bad gradient (Carlini et al., 2019, arXiv 1902.06705, whose
    number of draws it has).
    """

    draws: int = 10_000

    def _point(self, draw: int, x: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        return threat.random_edge(x, rng) if draw % 2 else threat.random_start(x, rng)
