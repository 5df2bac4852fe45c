"""Which epochs are rungs, and from which of them on a trial is looked at: what driver and workers both have to know."""

import random
from dataclasses import dataclass


def rungs(grace: int, eta: int, longest: int) -> tuple[int, ...]:
    """The epochs grace * eta^k, k = 0, 1, ..., below `longest`; none where `grace` is not."""
    found = []
    while grace < longest:
        found.append(grace)
        grace *= eta
    return tuple(found)


@dataclass(frozen=True)
class Brackets:
    """The rungs of a sweep, and each trial's bracket, drawn from the seed and the trial's name alone.

    Attributes:
        shares: of the trials, how many are in each bracket, as weights.
    """

    grace: int
    eta: int
    shares: tuple[float, ...] = (1.0,)
    seed: int = 0

    def of(self, trial: str) -> int:
        """The number of rungs that the trial passes unseen."""
        draw = random.Random(f"{self.seed} {trial}")
        return draw.choices(range(len(self.shares)), self.shares)[0]

    def meets(self, trial: str, epoch: int, epochs: int) -> bool:
        """Whether the trial is looked at after an epoch, counted from 1: none of its rungs is its last, `epochs`."""
        return epoch < epochs and epoch in rungs(self.grace, self.eta, epoch + 1)[self.of(trial) :]
