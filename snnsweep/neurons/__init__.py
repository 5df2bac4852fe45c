"""Spiking neurons: a charge equation each, and what fires, resets and carries the surrogate over all time steps.

For every time step, with membrane v (0 at the start of each call), threshold th and surrogate derivative g:

    v <- charge(v, x[t]) + noise * xi,  xi ~ N(0, 1)
    s[t] = 1 if v >= th else 0,  backward: ds/dv = g(v - th)
    v <- v * (1 - s) (hard reset)  or  v - s * th (soft reset)

On request (`neuron.noise`) the membrane is noisy, in training and after it (Ma et al., 2023, arXiv 2305.16044; their
learning rule is the surrogate `gaussian` with alpha = 1 / noise, the slope of the expected spike), and
(`neuron.learn_threshold`) each layer learns its threshold (Rathi and Roy, 2020, arXiv 2008.03658), here as
th = v_threshold * exp(w), which stays positive.
"""

from torch import nn

from snnsweep import registry
from snnsweep.config import NeuronConfig
from snnsweep.neurons.base import SpikingNeuron
from snnsweep.neurons.kinds import IF, LIF, PLIF, PSN, ReLU
from snnsweep.neurons.surrogates import Surrogate, gaussian, register_surrogate

register, get, names = registry.neurons.register, registry.neurons.get, registry.neurons.names


def build(config: NeuronConfig, time_steps: int) -> nn.Module:
    """A new layer of neurons, for sequences of `time_steps` steps.

    Raises:
        UnknownName: no neuron or no surrogate has the configured name.
    """
    return get(config.name)(config, time_steps)


__all__ = [
    "IF",
    "LIF",
    "PLIF",
    "PSN",
    "ReLU",
    "SpikingNeuron",
    "Surrogate",
    "build",
    "gaussian",
    "get",
    "names",
    "register",
    "register_surrogate",
]
