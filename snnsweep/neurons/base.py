"""The layer that all spiking neurons share: which way through time its spikes take, and what a rule may replace."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from snnsweep import registry
from snnsweep.config import NeuronConfig
from snnsweep.neurons import fused
from snnsweep.neurons.steps import Dynamics, unrolled
from snnsweep.neurons.surrogates import FAMILIES, Heaviside, Surrogate


class SpikingNeuron(nn.Module):
    """A layer of neurons that share their constants; a subclass gives the charge equation.

    Nothing outlives a call, so there is no state to reset. While a gradient rule holds, an instance may have a
    `forward`, `charge` or `surrogate_at` of the rule's, with the same spikes.

    Attributes:
        v_threshold: fires at or above it; where the threshold is learned, its start value.
        reset: `hard` or `soft`.
        detach_reset: no gradient through the reset's spike.
        noise: standard deviation of the membrane's noise, drawn from torch's global generator of the input's device.
        random: whether two calls on one input may differ.
        surrogate: may be replaced at any time; the spikes do not depend on it. Taken at the forward pass and called
            in the backward pass, once per time step, last step first, with u of one step: [...].
    """

    _equation: ClassVar[Callable[..., Tensor] | None] = None  # of a built-in charge

    def __init__(self, config: NeuronConfig, time_steps: int):
        super().__init__()
        self.v_threshold = config.v_threshold
        self.reset = config.reset
        self.detach_reset = config.detach_reset
        self.noise = config.noise
        self.random = config.noise > 0
        self.w_threshold = nn.Parameter(torch.zeros(())) if config.learn_threshold else None
        self.surrogate: Surrogate = partial(registry.surrogates.get(config.surrogate), alpha=config.alpha)

    @property
    def threshold(self) -> Tensor | float:
        """th, where it is learned as it stands."""
        return self.v_threshold if self.w_threshold is None else self.v_threshold * self.w_threshold.exp()

    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        """The membrane after one step's input, before it fires: a pure function of v and x, both [...]."""
        if self._equation is None:
            raise NotImplementedError(f"{type(self).__name__} has to define charge(v, x)")
        return self._equation(v, x, self._rate())

    def _rate(self) -> Tensor | float:
        """The last argument of the built-in charge equation."""
        return 0.0

    def surrogate_at(self, t: int, u: Tensor) -> Surrogate:
        """The surrogate of step t (from 0) with u [...]; asked in the forward pass, first step first."""
        return self.surrogate

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1 in x's dtype, of the input currents x: both [T, ...]."""
        if (dynamics := self._dynamics()) is not None:
            return fused.spikes(x, self.threshold, self._rate(), dynamics)
        return unrolled(x, self._charged, self._fire, self.threshold, self.reset == "hard", self.detach_reset)

    def _dynamics(self) -> Dynamics | None:
        """What all steps as one operation need; None where the loop has to serve.

        It has to wherever a part is not one that the operation knows by heart: a charge of a class's own or of a
        gradient rule's, a surrogate that differs by step or is of no built-in family, noise; and under torch.compile,
        which can follow the loop but no compiled kernel.
        """
        kind, base, equation, surrogate = type(self), SpikingNeuron, self._equation, self.surrogate
        own = (kind.charge, kind.surrogate_at) != (base.charge, base.surrogate_at)
        ruled = not {"charge", "surrogate_at"}.isdisjoint(vars(self))
        if equation is None or own or ruled or self.noise or torch.compiler.is_compiling():
            return None
        if not isinstance(surrogate, partial) or surrogate.func not in FAMILIES or surrogate.args:
            return None
        alpha = surrogate.keywords.get("alpha")
        if len(surrogate.keywords) != 1 or not isinstance(alpha, float | int):
            return None
        return Dynamics(equation, self.reset == "hard", self.detach_reset, surrogate.func, alpha)

    def _charged(self, v: Tensor, x: Tensor) -> Tensor:
        return self._disturbed(self.charge(v, x))

    def _fire(self, t: int, u: Tensor) -> Tensor:
        return Heaviside.apply(u, self.surrogate_at(t, u))

    def _disturbed(self, v: Tensor) -> Tensor:
        return v + self.noise * torch.randn_like(v) if self.noise else v
