"""Trial packing: K trainers of one architecture train as one model, in one set of operations.

Each member keeps its own weights, constants, rates, order of images and schedule, may stand at another epoch than the
others, and gives what it would give alone up to rounding: the kernels of a pack add up in another order here and there
(`docs/packing.md` says where). After every epoch all is written back, so that between epochs the members are ordinary
trainers, to be measured, attacked, saved, resumed, or taken out.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from snnsweep import models
from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.data import batches_of_many, source
from snnsweep.errors import Diverged, UserError
from snnsweep.models.packed import PackedModel, unknown_part
from snnsweep.training.loop import Trainer
from snnsweep.training.packed_losses import LOSSES
from snnsweep.training.packed_optimizer import optimizer_of
from snnsweep.training.spike_bits import as_bits

OBJECTIVE = "natural"
# What members may have of their own. The rest has to be one, for it decides the shapes or the operations.
OWN = {"neuron.v_threshold", "neuron.tau", "neuron.alpha", "seed"}
OWN |= {f"train.{key}" for key in ("lr", "weight_decay", "momentum", "grad_clip", "schedule", "epochs", "tet_lambda")}
# Of other objectives than `natural`, or of no training.
UNUSED = {f"train.{key}" for key in ("eps", "attack_steps", "attack_rel_step", "beta")}
UNUSED |= {f"train.{key}" for key in ("sr_weight", "sr_step", "rat_weight")}


def key_of(config: TrialConfig) -> tuple[tuple[str, object], ...]:
    """What members of one pack share."""
    flat = config.to_flat()
    free = (*OWN, *UNUSED, *(key for key in flat if key.startswith(("threat.", "attack."))))
    return tuple((key, value) for key, value in flat.items() if key not in free)


def unpackable(configs: Sequence[TrialConfig], spec: ImageSpec | None = None) -> list[str]:
    """Why these trials cannot be packed, a sentence for each reason; none where they can.

    Args:
        spec: of the images, where the data set's is known only from its files.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return [*_misfits(configs), *_unknown(models.build(configs[0], spec))]


def _misfits(configs: Sequence[TrialConfig]) -> list[str]:
    first = dict(key_of(configs[0]))
    others = [dict(key_of(config)) for config in configs[1:]]
    reasons = [
        f"{key}: a pack has one for all its members; given {value!r} and {other[key]!r}"
        for other in others
        for key, value in first.items()
        if other[key] != value
    ]
    config = configs[0]
    if config.train.objective != OBJECTIVE:
        reasons.append(f"train.objective: a pack knows {OBJECTIVE} alone; given {config.train.objective!r}")
    if config.train.loss not in LOSSES:
        reasons.append(f"train.loss: a pack knows {', '.join(sorted(LOSSES))}; given {config.train.loss!r}")
    if len({source(config) for config in configs}) > 1:
        reasons.append("data.name: a pack has one set of images; given one that depends on what differs here")
    return list(dict.fromkeys(reasons))


def _unknown(model: nn.Module) -> list[str]:
    part = unknown_part(model)
    return [f"a pack has no such part: {part}"] if part else []


class Pack:
    """Trainers that train together, with one device and one data set.

    Args:
        trainers: ordinary ones, each as it stands.

    Attributes:
        trainers: the members; behind the pack while an epoch runs, up to date before and after it.

    Raises:
        UserError: these cannot be packed.
    """

    def __init__(self, trainers: Sequence[Trainer]):
        reasons = [*_misfits([trainer.config for trainer in trainers]), *_unknown(trainers[0].model)]
        if any(trainer.parts > 1 for trainer in trainers):
            reasons.append("a member's batches go through in parts, for want of memory")
        if reasons:
            raise UserError("these trials cannot be packed\n" + "\n".join(reasons))
        self.trainers = list(trainers)
        self._load()

    def _load(self) -> None:
        """The members, as they stand, into the pack."""
        self.config = self.trainers[0].config
        self.model = PackedModel([trainer.model for trainer in self.trainers]).train()
        self._parameters = list(self.model.parameters())
        self._optimizer = optimizer_of(self.trainers, self._parameters)

    def epoch(self) -> list[dict[str, float] | Diverged]:
        """Trains one epoch of each member; its metrics as `Trainer.epoch` gives them, or how it diverged.

        A member that diverged touches no other one; it may be dropped.
        """
        self._optimizer.take_rates()
        for trainer in self.trainers:
            trainer.members = max(trainer.members, len(self.trainers))
        losses = torch.stack([self.step(x, y) for x, y in self._batches()]).mean(0)
        self.write_back()
        return [_ended(trainer, loss) for trainer, loss in zip(self.trainers, losses.tolist(), strict=True)]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, data = self.trainers[0], self.config.data
        return batches_of_many(first.split, data.batch_size, [trainer.rng for trainer in self.trainers], data.augment)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One optimiser step of every member.

        Args:
            x, y: each member's batch, [K, N, ...] and [K, N].

        Returns:
            The losses [K].
        """
        train = self.config.train
        kept = as_bits() if train.pack_spikes else nullcontext()
        with kept, torch.autocast(x.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            steps = self.model.forward_steps(x).float()
            losses = LOSSES[train.loss](steps, y, [trainer.config for trainer in self.trainers])
        self._optimizer.step(torch.autograd.grad(losses.sum(), self._parameters))
        return losses.detach()

    def write_back(self) -> None:
        """Brings the members' models and optimisers up to date."""
        self.model.write_back([trainer.model for trainer in self.trainers])
        self._optimizer.write_back(self.trainers)

    def drop(self, member: int) -> Trainer:
        """Takes a member out, as an ordinary trainer; the others go on.

        Raises:
            UserError: it is the last one.
        """
        if len(self.trainers) == 1:
            raise UserError("a pack has one member at least; this is its last one")
        self.write_back()
        dropped = self.trainers.pop(member)
        self._load()
        return dropped


def _ended(trainer: Trainer, loss: float) -> dict[str, float] | Diverged:
    try:
        return trainer.ended(loss)
    except Diverged as error:
        return error
