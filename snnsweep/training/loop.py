"""The plain training loop, an epoch at a time, so that whoever drives it can report, checkpoint or stop in between."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from snnsweep.config import TrainConfig, TrialConfig
from snnsweep.data import Split, batches
from snnsweep.errors import Diverged
from snnsweep.precision import arithmetic
from snnsweep.registry import trainers
from snnsweep.training.spike_bits import as_bits


class Trainer:
    """Trains a model on one split.

    An objective may have `after_step(model, config)`, which is called after each optimiser step.

    Attributes:
        epochs_done: finished epochs.
        parts: in so many a batch goes through the network, one after the other; their gradients add up to the batch's,
            but batch norm sees a part at a time.
        members: of the largest pack that trained it; 1 where it was always alone.
    """

    def __init__(self, model: nn.Module, config: TrialConfig, split: Split):
        self.model, self.config, self.split = model, config, split
        self.objective = trainers.get(config.train.objective)
        self.after_step = getattr(self.objective, "after_step", None)
        self.optimizer = _optimizer(model, config.train)
        self.schedule = _schedule(self.optimizer, config.train)
        self.rng = torch.Generator().manual_seed(config.seed)
        self.epochs_done = 0
        self.parts = self.members = 1

    def epoch(self) -> dict[str, float]:
        """Trains one epoch; the mean loss and the rate it ran with.

        Raises:
            Diverged: a loss or a parameter is not finite.
        """
        self.model.train()
        losses = []
        for x, y in batches(self.split, self.config.data.batch_size, self.rng, self.config.data.augment):
            losses.append(self.step(x, y))
        # read once an epoch: a read per step would drain a GPU's queue
        return self.ended(float(torch.stack(losses).mean()))

    def ended(self, loss: float) -> dict[str, float]:
        """Counts an epoch that was trained, here or in a pack, with its mean loss; what `epoch` returns.

        Raises:
            Diverged: as `epoch`.
        """
        rate = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        self._check_finite(loss)
        self.epochs_done += 1
        return {"train/loss": loss, "train/lr": rate}

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One optimiser step on a batch; its loss."""
        settings = self.config.train
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(some, some_y, len(some_y) / len(y)) for some, some_y in self._divided(x, y)]
        if settings.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        self.optimizer.step()
        if self.after_step:
            self.after_step(self.model, self.config)
        return torch.stack(losses).sum()

    def _divided(self, x: Tensor, y: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(x.chunk(self.parts), y.chunk(self.parts), strict=True)

    def _backward(self, x: Tensor, y: Tensor, share: float) -> Tensor:
        """The gradient of a part of a batch, by its share; its share of the loss."""
        train = self.config.train
        kept = as_bits() if train.pack_spikes else nullcontext()
        with arithmetic(train.precision):
            with kept, torch.autocast(x.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
                loss = self.objective(self.model, x, y, self.config, self.rng) * share
            loss.backward()
        return loss.detach().float()

    def _check_finite(self, loss: float) -> None:
        epoch = self.epochs_done + 1
        if loss - loss != 0:
            raise Diverged(epoch, "the training loss")
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise Diverged(epoch, "a parameter")

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if never stopped."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": self.rng.get_state(),
            "epochs_done": self.epochs_done,
            "members": self.members,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rng.set_state(state["rng"].cpu())
        self.epochs_done = state["epochs_done"]
        self.members = max(self.members, state.get("members", 1))


def _optimizer(model: nn.Module, train: TrainConfig) -> Optimizer:
    if train.optimizer == "adam":
        # In one pass over the weights, where it has been measured: else a tenth to a fifth of a small batch's step.
        fused = all(p.device.type == "cpu" for p in model.parameters()) or None
        return Adam(model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=fused)
    return SGD(model.parameters(), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay)


def _schedule(optimizer: Optimizer, train: TrainConfig) -> LRScheduler:
    if train.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=train.epochs)
    return LambdaLR(optimizer, lambda _epoch: 1.0)
