"""The built-in neurons."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from snnsweep import registry
from snnsweep.config import NeuronConfig
from snnsweep.errors import UserError
from snnsweep.neurons.base import SpikingNeuron
from snnsweep.neurons.steps import integrate, leak, leak_times

register = registry.neurons.register


@register("if")
class IF(SpikingNeuron):
    """Integrate and fire: v + x; `neuron.tau` has no meaning here."""

    _equation = staticmethod(integrate)


@register("lif")
class LIF(SpikingNeuron):
    """Leaky integrate and fire: v + (x - v) / tau, rest at 0."""

    _equation = staticmethod(leak)

    def __init__(self, config: NeuronConfig, time_steps: int):
        super().__init__(config, time_steps)
        self.tau = config.tau

    def _rate(self) -> float:
        return self.tau


@register("plif")
class PLIF(SpikingNeuron):
    """LIF that learns 1 / tau = sigmoid(w), one w a layer (Fang et al., 2021, arXiv 2007.05785)."""

    _equation = staticmethod(leak_times)

    def __init__(self, config: NeuronConfig, time_steps: int):
        super().__init__(config, time_steps)
        self.w = nn.Parameter(torch.tensor(-math.log(config.tau - 1)))

    def _rate(self) -> Tensor:
        return self.w.sigmoid()


@register("psn")
class PSN(SpikingNeuron):
    """Parallel spiking neuron: membrane W x + b over all steps at once, no reset (Fang et al., 2023, arXiv 2304.12760).

    W [T, T] and b [T, 1] are learned. b starts at -v_threshold and is a threshold for each step, of either sign:
    `neuron.learn_threshold` changes nothing here. `neuron.tau`, `reset` and `detach_reset` have no meaning.
    Every step sees the inputs of all steps, later ones too.
    """

    def __init__(self, config: NeuronConfig, time_steps: int):
        super().__init__(config, time_steps)
        self.w_threshold = None  # b is learned in its place
        self.weight = nn.Parameter(torch.empty(time_steps, time_steps))
        self.bias = nn.Parameter(torch.full((time_steps, 1), -config.v_threshold))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def membrane(self, x: Tensor) -> Tensor:
        """W x + b, without noise, of the input currents x: both [T, ...]; it fires at 0.

        Raises:
            UserError: x has another number of steps than T.
        """
        if len(x) != len(self.weight):
            raise UserError(
                f"a psn has weights for the {len(self.weight)} time steps that it was built with (encoder.time_steps); "
                f"given a sequence of {len(x)}; build the model for that length, or choose a neuron such as lif"
            )
        with torch.autocast(x.device.type, enabled=False):  # the membrane stays in fp32 here too
            return torch.addmm(self.bias, self.weight, x.flatten(1).to(self.weight.dtype)).view(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1 in x's dtype, of the input currents x: both [T, ...].

        Raises:
            UserError: x has another number of steps than T.
        """
        v = self._disturbed(self.membrane(x))
        return torch.stack([self._fire(t, u) for t, u in enumerate(v)]).to(x.dtype)


@register("relu")
class ReLU(nn.ReLU):
    """Rectified linear unit at every step, no spikes: turns a model into its ANN twin.

    No other key of `neuron.*` has a meaning here, and no gradient rule acts on it.
    """

    exact: ClassVar[bool] = True  # its gradient needs no surrogate, so that one gradient rule is all there is

    def __init__(self, config: NeuronConfig, time_steps: int):
        super().__init__()
