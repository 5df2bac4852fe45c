"""One neuron over time, as pure functions: three charge equations, and the loop that fires and resets.

For every time step, with membrane v (0 at the start), threshold th and surrogate derivative g:

    h[t] = charge(v, x[t]);  s[t] = 1 if h[t] >= th else 0, backward: ds/dh = g(h - th)
    v <- h[t] * (1 - s[t]) (hard reset)  or  h[t] - s[t] * th (soft reset)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# One for a whole layer, or a tensor; of K members of a pack [K, 1, ...], beside currents [T, N, K, ...].
Number = Tensor | float
Charge = Callable[[Tensor, Tensor], Tensor]
Fire = Callable[[int, Tensor], Tensor]  # step t (from 0) and u = h[t] - th -> its spikes


def integrate(v: Tensor, x: Tensor, rate: Tensor | float) -> Tensor:
    """v + x; there is no rate."""
    return v + x


def leak(v: Tensor, x: Tensor, rate: Tensor | float) -> Tensor:
    """v + (x - v) / rate, rate = tau."""
    return v + (x - v) / rate


def leak_times(v: Tensor, x: Tensor, rate: Tensor | float) -> Tensor:
    """v + (x - v) * rate, rate = 1 / tau."""
    return v + (x - v) * rate


# In the order in which the compiled kernel numbers them.
CHARGES = (integrate, leak, leak_times)


@dataclass(frozen=True)
class Dynamics:
    """What is constant in a layer and not learned.

    Attributes:
        charge: one of `CHARGES`.
        hard: the reset.
        detach: no gradient through the reset's spike.
        family, alpha: the surrogate, one of `surrogates.FAMILIES`; alphas of a pack's members in float64.
    """

    charge: Callable[..., Tensor]
    hard: bool
    detach: bool
    family: Callable[..., Tensor]
    alpha: Number


def reset(h: Tensor, spike: Tensor, threshold: Tensor | float, hard: bool) -> Tensor:
    """The membrane after the step."""
    return h * (1 - spike) if hard else h - spike * threshold


def membrane_dtype(x: Tensor) -> torch.dtype:
    """Under bf16 the membrane stays in fp32: its 8 bits would swallow small currents."""
    return torch.promote_types(x.dtype, torch.float32)


def unrolled(x: Tensor, charge: Charge, fire: Fire, threshold: Tensor | float, hard: bool, detach: bool) -> Tensor:
    """Spikes of the currents x, both [T, ...], step by step, with autograd's own derivative of every part."""
    v = torch.zeros_like(x[0], dtype=membrane_dtype(x))
    spikes = []
    for t, current in enumerate(x):
        v = charge(v, current)
        spike = fire(t, v - threshold)
        spikes.append(spike)
        v = reset(v, spike.detach() if detach else spike, threshold, hard)
    return torch.stack(spikes).to(x.dtype)
