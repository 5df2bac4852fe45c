"""Auto-PGD: gradient ascent with momentum that halves its own step where it makes no progress."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snnsweep.attacks.base import Attack, Oracle, Threat
from snnsweep.registry import attacks

MOMENTUM = 0.75  # the new step's share; the rest is the last one's
PROGRESS = 0.75  # share of the steps between two checkpoints that have to raise the loss


def checkpoints(steps: int) -> list[int]:
    """The steps, counted from 1, after which the step size is looked at: ceil(p_j steps), up to `steps`.

    p_1 = 0.22, then windows 0.03 shorter each time, at least 0.06 (Croce and Hein, 2020, section 3.2):
    22, 41, 57, 70, 80, 87, 93, 99 of 100. In whole hundredths, since floats would round 0.7 * 100 up.
    """
    found, share, window = [], 22, 22
    while share <= 100:
        found.append(-(-share * steps // 100))
        window = max(window - 3, 6)
        share += window
    return sorted(set(found))


@attacks.register("apgd")
@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD on the cross-entropy (Croce and Hein, 2020, arXiv 2003.01690, algorithm 1).

    z = P(x_k + eta s(grad)), x_(k+1) = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_(k-1))), s the steepest step of the norm.
    At each of `checkpoints` a sample's eta is halved, and its point becomes its best one, where (1) the loss rose in
    less than 0.75 of the steps since the checkpoint before, or (2) neither eta nor the best loss has changed since
    then. Both are looked at once the checkpoint's own point is known, as in the authors' code.

    Attributes:
        steps: gradient steps, at least 1; one more point is asked for, the start.
        rel_step: eta at the start as a share of eps.
        loss: what it increases.
    """

    steps: int = 100
    rel_step: float = 2.0
    loss: str = "cross_entropy"
    per_sample = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        here = before = best = threat.stretched_start(x, rng)
        loss, grad = best_loss, best_grad = oracle.loss_and_gradient(here)
        schedule = _Schedule(self.steps, self.rel_step * threat.eps, loss)
        for k in range(1, self.steps + 1):
            ahead = threat.project(here + threat.step(grad, schedule.size), x)
            if k > 1:
                ahead = threat.project(here + MOMENTUM * (ahead - here) + (1 - MOMENTUM) * (here - before), x)
            here, before, last = ahead, here, loss
            loss, grad = oracle.loss_and_gradient(here)
            better = loss > best_loss
            best, best_grad = threat.pick(better, here, best), threat.pick(better, grad, best_grad)
            best_loss = torch.where(better, loss, best_loss)
            back = schedule.halved(k, loss > last, best_loss)
            here, grad = threat.pick(back, best, here), threat.pick(back, best_grad, grad)
            loss = torch.where(back, best_loss, loss)
        return best


@attacks.register("apgd_dlr")
@dataclass(frozen=True)
class APGDDLR(APGD):
    """Auto-PGD on the difference of logits ratio, which a model cannot hide by the scale of its logits."""

    loss: str = "dlr"


class _Schedule:
    """Each sample's step size, halved at checkpoints where the loss makes no progress.

    Attributes:
        size: [N].
    """

    def __init__(self, steps: int, size: float, loss: Tensor):
        self.size = torch.full_like(loss, size)
        self._checkpoints = checkpoints(steps)
        self._last, self._best, self._rises = 0, loss, torch.zeros_like(loss)
        self._kept = torch.ones_like(loss, dtype=torch.bool)

    def halved(self, k: int, rose: Tensor, best: Tensor) -> Tensor:
        """After step k, in which the loss rose [N] and `best` is the best so far [N]: bool [N], who was halved."""
        self._rises = self._rises + rose
        if k not in self._checkpoints:
            return torch.zeros_like(rose)
        halved = (self._rises < PROGRESS * (k - self._last)) | (self._kept & (best == self._best))
        self.size = torch.where(halved, self.size / 2, self.size)
        self._last, self._best, self._kept, self._rises = k, best, ~halved, torch.zeros_like(self._rises)
        return halved
