"""The model as an attack sees it: logits, losses and gradients, every answer judged."""

from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor

from snnsweep.attacks.losses import Loss, cross_entropy
from snnsweep.attacks.threat import Threat

Forward = Callable[[Tensor], Tensor]
EOT = 10  # passes whose gradients are averaged where a model answers with fresh noise

# The oracle whose question the model answers at the moment; None outside of attacks. A gradient rule with statistics
# reads it in the forward pass (the backward pass may run in another thread): another oracle is another attack run, and
# one with `repeat` > 0 asks about the same point again.
asking: "ContextVar[Oracle | None]" = ContextVar("asking", default=None)


LOOKS = {"cpu": 1}  # questions between two looks at who still stands; elsewhere each look waits for the device
RARELY = 5


class Oracle:
    """A model under attack. Every answer is judged: the first legal point that fools the model is kept.

    Nothing here waits for the device but `standing`, and that only every few questions: who fell since then is asked
    about a few times more, which changes no verdict.

    Args:
        forward: inputs in the threat's space -> logits [N, classes].
        x, y: the clean inputs and their labels [N].
        loss: what the attack increases.
        random: the model answers with fresh noise. A lucky answer proves nothing there: no point counts as fooling.
        eot: expectation over transformations (Athalye et al., 2018, arXiv 1802.00420): a random model's losses and
            gradients are means of that many passes.
        batch: samples in one pass of the model; None for all at once.
        leaves: a sample that has fallen is asked about no more: its gradient is 0 from then on, and its loss NaN.

    Attributes:
        fooled: bool [N], whether some point asked about so far fooled the model.
        found: that point for each sample, else the clean input.
        losses: for each point whose gradient was asked for, its losses [N].
        repeat: which of the `eot` passes over one point runs, from 0 on.
    """

    def __init__(
        self,
        forward: Forward,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        loss: Loss = cross_entropy,
        random: bool = False,
        eot: int = EOT,
        batch: int | None = None,
        leaves: bool = False,
    ):
        self._forward, self._x, self._y, self._threat, self._loss = forward, x, y, threat, loss
        self._random, self._passes = random, eot if random else 1
        self.batch, self.leaves = batch or max(1, len(y)), leaves and not random
        self.fooled = torch.zeros_like(y, dtype=torch.bool)
        self.found = x
        self.losses: list[Tensor] = []
        self.repeat = 0
        self._standing = torch.arange(len(y), device=y.device)
        self._asked, self._patience = 0, LOOKS.get(y.device.type, RARELY)

    @property
    def standing(self) -> Tensor:
        """The indices [k] of the samples worth another query: those that no point has fooled, by the last look."""
        if self._asked >= self._patience:
            self._standing, self._asked = (~self.fooled).nonzero().squeeze(1), 0
        return self._standing

    def logits(self, adv: Tensor, samples: Tensor | None = None) -> Tensor:
        """Logits, without a graph, of one pass.

        Args:
            samples: the indices [k] of the samples that `adv` holds; None for all.

        Returns:
            [k, classes].
        """
        dim, found = self._threat.sample_dim, []
        self._asked += 1
        with torch.no_grad():
            for part in _parts(torch.arange(adv.shape[dim], device=adv.device), self.batch):
                points = adv if len(part) == adv.shape[dim] else self._threat.take(adv, part)
                found.append(self._answer(points))
                self._judge(points, found[-1], part if samples is None else samples[part])
        return torch.cat(found)

    def gradient(self, adv: Tensor) -> Tensor:
        """The gradient of each sample's loss at `adv`; 0 where it is not finite or does not reach `adv`."""
        return self.loss_and_gradient(adv)[1]

    def loss_and_gradient(self, adv: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's loss [N] at `adv`, and its gradient there as `gradient` gives it."""
        samples = self.standing if self.leaves else torch.arange(len(self._y), device=self._y.device)
        self._asked += 1
        parts = [self._mean_pass(adv, part) for part in _parts(samples, self.batch)]
        losses, grads = torch.full(self._y.shape, torch.nan, device=adv.device), torch.zeros_like(adv)
        if parts:
            some, slopes = torch.cat([loss for loss, _ in parts]), [grad for _, grad in parts]
            slope = slopes[0] if len(slopes) == 1 else torch.cat(slopes, self._threat.sample_dim)
            if len(samples) == len(self._y):
                losses, grads = some, slope
            else:
                losses = losses.to(some.dtype).index_copy(0, samples, some)
                grads = grads.index_copy(self._threat.sample_dim, samples, slope)
        self.losses.append(losses)
        return losses, grads

    def _mean_pass(self, adv: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and gradients of these samples: of one pass, or of a random model the means of several."""
        points, y = adv.detach(), self._y
        if len(part) < len(self._y):
            points, y = self._threat.take(points, part), y[part]
        found = []
        for self.repeat in range(self._passes):
            found.append(self._one_pass(points, y, part))
        self.repeat = 0
        if self._passes == 1:
            return found[0]
        losses, grads = (torch.stack(each).mean(0) for each in zip(*found, strict=True))
        return losses, grads

    def _one_pass(self, adv: Tensor, y: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        adv = adv.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._answer(adv)
            loss = self._loss(logits, y)
            grad = torch.zeros_like(adv)
            if loss.requires_grad:  # else nothing on the way has a slope, not even a parameter that nobody froze
                (grad,) = torch.autograd.grad(loss.sum(), adv, materialize_grads=True)
        self._judge(adv.detach(), logits.detach(), samples)
        return loss.detach(), grad.nan_to_num(0.0, 0.0, 0.0)

    def _answer(self, adv: Tensor) -> Tensor:
        token = asking.set(self)
        try:
            return self._forward(adv)
        finally:
            asking.reset(token)

    def _judge(self, adv: Tensor, logits: Tensor, samples: Tensor) -> None:
        if self._random:
            return
        threat, before, found = self._threat, self.fooled[samples], self._threat.take(self.found, samples)
        legal = threat.allows(adv, threat.take(self._x, samples))
        new = (logits.argmax(1) != self._y[samples]) & legal & ~before
        self.fooled = self.fooled.index_copy(0, samples, before | new)
        self.found = self.found.index_copy(threat.sample_dim, samples, threat.pick(new, adv, found))


def _parts(samples: Tensor, batch: int) -> list[Tensor]:
    """The indices in as few parts of at most `batch` as there can be, of about one size."""
    return list(samples.tensor_split(-(-len(samples) // batch))) if len(samples) else []
