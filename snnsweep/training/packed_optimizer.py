"""Adam and SGD for all members of a pack at once: what is a row [P] of one member is [K, P] here.

The update rules are torch's own, with a rate, weight decay, momentum and largest gradient norm for each member, and a
step count for each, since members may stand at different epochs.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Adam

from snnsweep.training.loop import Trainer


class StackedOptimizer:
    """The base: clips, decays, and moves the parameters by what a subclass makes of the gradient.

    Args:
        trainers: K members, whose optimisers are taken over as they stand.
        parameters: of the pack, each [K, ...], in the order of the members' own.
    """

    slots: tuple[str, ...]

    def __init__(self, trainers: Sequence[Trainer], parameters: Sequence[Tensor]):
        self.parameters = [parameter.detach().view(len(parameter), -1) for parameter in parameters]
        self.sizes = [parameter.shape[1] for parameter in self.parameters]
        self.groups = [trainer.optimizer.param_groups[0] for trainer in trainers]
        self.decays = any(group["weight_decay"] for group in self.groups)
        self.weight_decay = self._column([group["weight_decay"] for group in self.groups])
        clips = [trainer.config.train.grad_clip for trainer in trainers]
        self.clips = any(clip is not None for clip in clips)
        self.largest = self._column([math.inf if clip is None else clip for clip in clips])
        self.state = {slot: torch.stack([self._row(trainer, slot) for trainer in trainers]) for slot in self.slots}
        # Kept from step to step: to get such large pieces of memory anew costs more than what is computed in them.
        size = (len(trainers), sum(self.sizes))
        self.scratch = [self.parameters[0].new_empty(size) for _ in range(3)]
        self.take_rates()

    def take_rates(self) -> None:
        """The members' learning rates, as their schedules have set them."""
        self.rate = self._column([group["lr"] for group in self.groups], torch.float64)

    def step(self, grads: Sequence[Tensor]) -> None:
        """One step, of gradients in the parameters' order and shapes."""
        grad, spare, _ = self.scratch
        torch.cat([one.reshape(len(one), -1) for one in grads], 1, out=grad)
        if self.clips:  # as nn.utils.clip_grad_norm_
            grad *= (self.largest / (grad.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
        if self.decays:
            grad.addcmul_(torch.cat(self.parameters, 1, out=spare), self.weight_decay)
        torch._foreach_add_(self.parameters, list(self._update(grad).split(self.sizes, 1)))

    def _update(self, grad: Tensor) -> Tensor:
        """What is added to the parameters, [K, P]."""
        raise NotImplementedError

    def write_back(self, trainers: Sequence[Trainer]) -> None:
        """Brings the members' own optimisers up to date."""
        for i, trainer in enumerate(trainers):
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.optimizer.step()  # without gradients it moves nothing, and the schedule knows of a step
            for slot in self._kept(i):
                pieces = self.state[slot][i].split(self.sizes)
                for parameter, piece in zip(trainer.model.parameters(), pieces, strict=True):
                    trainer.optimizer.state[parameter][slot] = piece.view(parameter.shape).clone()

    def _kept(self, member: int) -> tuple[str, ...]:
        """What torch's optimiser would hold of that member."""
        return self.slots

    def _row(self, trainer: Trainer, slot: str) -> Tensor:
        states = [(trainer.optimizer.state[p].get(slot), p) for p in trainer.model.parameters()]
        return torch.cat([(torch.zeros_like(p) if found is None else found).flatten() for found, p in states]).detach()

    def _column(self, values: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
        like = self.parameters[0]
        return torch.tensor(values, dtype=dtype or like.dtype, device=like.device).unsqueeze(1)


class StackedAdam(StackedOptimizer):
    """Adam (Kingma and Ba, 2015, algorithm 1), as torch.optim.Adam."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(self, trainers: Sequence[Trainer], parameters: Sequence[Tensor]):
        super().__init__(trainers, parameters)
        self.betas, self.eps = self.groups[0]["betas"], self.groups[0]["eps"]
        first = [next(trainer.model.parameters()) for trainer in trainers]
        done = [trainer.optimizer.state[p].get("step", 0.0) for trainer, p in zip(trainers, first, strict=True)]
        self.steps = self._column([float(steps) for steps in done], torch.float64)

    def _update(self, grad: Tensor) -> Tensor:
        (beta1, beta2), (mean, square) = self.betas, self.state.values()
        self.steps += 1
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        rate = (self.rate / (1 - beta1**self.steps)).to(grad.dtype)
        spread = (1 - beta2**self.steps).sqrt().to(grad.dtype)
        _, change, scale = self.scratch
        torch.sqrt(square, out=scale).div_(spread).add_(self.eps)
        return torch.mul(mean, -rate, out=change).div_(scale)

    def write_back(self, trainers: Sequence[Trainer]) -> None:
        super().write_back(trainers)
        for trainer, steps in zip(trainers, self.steps.flatten().tolist(), strict=True):
            for parameter in trainer.model.parameters():
                trainer.optimizer.state[parameter]["step"] = torch.tensor(float(steps))


class StackedSGD(StackedOptimizer):
    """SGD with momentum, as torch.optim.SGD."""

    slots = ("momentum_buffer",)

    def __init__(self, trainers: Sequence[Trainer], parameters: Sequence[Tensor]):
        super().__init__(trainers, parameters)
        self.momentum = self._column([group["momentum"] for group in self.groups])

    def _kept(self, member: int) -> tuple[str, ...]:
        return self.slots if self.groups[member]["momentum"] else ()

    def _update(self, grad: Tensor) -> Tensor:
        (momentum,) = self.state.values()
        momentum.mul_(self.momentum).add_(grad)
        return torch.mul(momentum, -self.rate.to(grad.dtype), out=self.scratch[1])


def optimizer_of(trainers: Sequence[Trainer], parameters: Sequence[Tensor]) -> StackedOptimizer:
    """What stands for the members' optimisers, all of one kind."""
    kind = StackedAdam if isinstance(trainers[0].optimizer, Adam) else StackedSGD
    return kind(trainers, parameters)
