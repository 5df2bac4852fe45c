"""Rules that look at a layer's rate, with no or a shortened way back through time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from snnsweep.attacks.rules.base import neurons_of, register, ruled, value_of
from snnsweep.errors import UserError
from snnsweep.neurons import PSN, SpikingNeuron
from snnsweep.registry import surrogates

Forward = Callable[[Tensor], Tensor]


@register("bptr")
@dataclass(frozen=True)
class BPTR:
    """Backpropagation through the rate: straight through where a neuron spiked at all, else 0.

    dL/dx[t] = dL/ds[t] 1[mean over time of s > 0], at every step, with no dependence between steps (the code of Ding et
    al., NeurIPS 2022, SNN-RAT, and of Hao et al., ICLR 2024).
    """

    per_sample: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return ruled(neurons_of(model), lambda neuron: {"forward": partial(_through_rate, neuron.forward)})


def _through_rate(exact: Forward, x: Tensor) -> Tensor:
    with torch.no_grad():
        spikes = exact(x)
    return value_of(spikes, x * (spikes.mean(0) > 0))


@register("rga")
@dataclass(frozen=True)
class RGA:
    """Rate gradient approximation: the slope of a closed form of the rate over the mean input (Bu et al., CVPR 2023).

    For v <- leak v + gain x and threshold th, y = gain mean_t(x) / th is the mean input in thresholds, and below
    onset = 1 - leak a constant input never fires. The rate is taken to be gamma y up to the onset and to rise in a
    straight line to 1 at y = 2:

        dL/dx[t] = dL/ds[t] gain / th * { gamma on [0, onset); (1 - gamma onset) / (2 - onset) on [onset, 2]; else 0 }

    Theirs is this form with th = gain = 1; other thresholds and gains (LIF: leak 1 - 1 / tau, gain 1 / tau) scale x,
    which keeps it the slope of a rate between 0 and 1. Leak and gain are read off `charge`, and so are those of a
    neuron of your own. A PSN keeps no membrane: there W x + b takes the input's place, y = 1 + mean_t(W x + b) / th
    with leak 0 and th = `neuron.v_threshold`, and the gradient goes on through W; that is no part of the paper.

    Attributes:
        gamma: slope below the onset, in [0, 1]; the authors' code has 0.2.
    """

    gamma: float = 0.2
    per_sample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise UserError(f"rga: gamma is the slope below the onset of firing, in [0, 1]; given {self.gamma}")

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return ruled(neurons_of(model), lambda neuron: {"forward": partial(self._forward, neuron, neuron.forward)})

    def _forward(self, neuron: SpikingNeuron, exact: Forward, x: Tensor) -> Tensor:
        drive = neuron.membrane(x) if isinstance(neuron, PSN) else x
        with torch.no_grad():
            spikes = exact(x)
            slope = self._slope(neuron, drive.mean(0))
        return value_of(spikes, (drive * slope).to(spikes.dtype))

    def _slope(self, neuron: SpikingNeuron, drive: Tensor) -> Tensor:
        zero, one = drive.new_zeros(()), drive.new_ones(())
        th = neuron.threshold * one
        if isinstance(neuron, PSN):
            y, onset, scale = 1 + drive / th, one, 1 / th
        else:
            scale = neuron.charge(zero, one) / th
            y, onset = drive * scale, (1 - neuron.charge(one, zero)).clamp(min=0)
        rise = torch.where(y < onset, self.gamma * one, (1 - self.gamma * onset) / (2 - onset))
        return scale * rise * ((y >= 0) & (y <= 2))


@register("hart")
@dataclass(frozen=True)
class HART:
    """Hybrid adversarial attack by rate and temporal information (Hao et al., ICLR 2024).

    The gradient at a layer's input currents is averaged over time, and none goes from step to step through the
    membrane, with du[t]/dx[t] by `charge`:

        dL/dx[t] = mean over all steps k of dL/ds[k] g(u[k]) du[k]/dx[k]

    A PSN keeps no membrane; there the gradient W^T (dL/ds g(u)) is averaged, as in the code of Wang et al.
    (arXiv 2512.22522).

    Attributes:
        width: 1 / alpha of the surrogate, in units of the membrane. The authors start from 1 at threshold 1, and take
            the best on the attacked data of 0.10, 0.15, ..., 2.45.
        family: a registered surrogate; theirs is `triangle` (Wang et al. sweep `atan` with alpha = 4 to 28).
    """

    width: float = 1.0
    family: str = "triangle"
    per_sample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise UserError(f"hart: width is 1 / alpha of the surrogate and above 0; given {self.width}")

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return ruled(neurons_of(model), self._change)

    def _change(self, neuron: SpikingNeuron) -> dict[str, Callable[..., Tensor]]:
        exact, charge = neuron.forward, neuron.charge
        return {
            "forward": lambda x: exact(value_of(x, x.mean(0).expand_as(x))),
            "charge": lambda v, x: charge(v.detach(), x),
            "surrogate": partial(surrogates.get(self.family), alpha=1 / self.width),
        }
