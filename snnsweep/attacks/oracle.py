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
        found, dim = [], self._threat.sample_dim
        self._asked += 1
        with torch.no_grad():
            for part in self._parts(adv.shape[dim], None):
                points = adv if part is None else self._threat.take(adv, part)
                whose = samples if part is None else part if samples is None else samples[part]
                found.append(self._answer(points))
                self._judge(points, found[-1], whose)
        return found[0] if len(found) == 1 else torch.cat(found)

    def gradient(self, adv: Tensor) -> Tensor:
        """The gradient of each sample's loss at `adv`; 0 where it is not finite or does not reach `adv`."""
        return self.loss_and_gradient(adv)[1]

    def loss_and_gradient(self, adv: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's loss [N] at `adv`, and its gradient there as `gradient` gives it."""
        n, dim, adv = len(self._y), self._threat.sample_dim, adv.detach()
        standing = self.standing if self.leaves else None
        samples = None if standing is None or len(standing) == n else standing
        self._asked += 1
        found = [self._mean_pass(adv, part) for part in self._parts(n, samples)]
        if not found:
            losses, grads = torch.full((n,), torch.nan, device=adv.device), torch.zeros_like(adv)
        elif len(found) == 1:
            losses, grads = found[0]
        else:
            losses, grads = torch.cat([loss for loss, _ in found]), torch.cat([grad for _, grad in found], dim)
        if found and samples is not None:
            losses = losses.new_full((n,), torch.nan).index_copy(0, samples, losses)
            grads = torch.zeros_like(adv).index_copy(dim, samples, grads)
        self.losses.append(losses)
        return losses, grads

    def _parts(self, n: int, samples: Tensor | None) -> list[Tensor | None]:
        """The n samples, or those of these indices, in as few parts as can be, of about one size; None for all."""
        if samples is None and n <= self.batch:
            return [None]
        samples = torch.arange(n, device=self._y.device) if samples is None else samples
        return list(samples.tensor_split(-(-len(samples) // self.batch))) if len(samples) else []

    def _mean_pass(self, adv: Tensor, part: Tensor | None) -> tuple[Tensor, Tensor]:
        """Losses and gradients of these samples: of one pass, or of a random model the means of several."""
        points, y = (adv, self._y) if part is None else (self._threat.take(adv, part), self._y[part])
        found = []
        for repeat in range(self._passes):
            self.repeat = repeat
            found.append(self._one_pass(points, y, part))
        self.repeat = 0
        if self._passes == 1:
            return found[0]
        losses, grads = (torch.stack(each).mean(0) for each in zip(*found, strict=True))
        return losses, grads

    def _one_pass(self, adv: Tensor, y: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor]:
        adv = adv.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._answer(adv)
            loss = self._loss(logits, y)
            if loss.requires_grad:
                (grad,) = torch.autograd.grad(loss.sum(), adv, materialize_grads=True)
            else:  # nothing on the way has a slope, not even a parameter that nobody froze
                grad = torch.zeros_like(adv)
        self._judge(adv.detach(), logits.detach(), samples)
        return loss.detach(), grad.nan_to_num(0.0, 0.0, 0.0)

    def _answer(self, adv: Tensor) -> Tensor:
        token = asking.set(self)
        try:
            return self._forward(adv)
        finally:
            asking.reset(token)

    def _judge(self, adv: Tensor, logits: Tensor, samples: Tensor | None) -> None:
        if self._random:
            return
        threat, x, y, fooled, found = self._threat, self._x, self._y, self.fooled, self.found
        if samples is not None:
            x, found = threat.take(x, samples), threat.take(found, samples)
            y, fooled = y[samples], fooled[samples]
        new = (logits.argmax(1) != y) & threat.allows(adv, x) & ~fooled
        found, fooled = threat.pick(new, adv, found), fooled | new
        if samples is not None:
            found = self.found.index_copy(threat.sample_dim, samples, found)
            fooled = self.fooled.index_copy(0, samples, fooled)
        self.found, self.fooled = found, fooled
