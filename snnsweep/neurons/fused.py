"""All time steps of a neuron as one operation: the loop's spikes bit for bit, and its gradient by hand.

With gs = dL/ds and gv = dL/dv (0 after the last step), from the last step to the first:

    d  = (gs[t] - gv * h[t] | hard reset, - gv * th | soft; neither if detached) * g(h[t] - th)
    gh = d + gv * (1 - s[t]) | hard, + gv | soft
    dL/dx[t] = gh (IF), gh / tau (LIF), gh k (PLIF, k = 1 / tau);  gv <- gh (IF), gh - dL/dx[t] (LIF, PLIF)
    dL/dk += sum gh (x[t] - v[t - 1]);  dL/dth -= sum d, and - sum gv s[t] | soft

Saved for it is x alone: h and s come out of x again, bit for bit, and x in bf16 is half of h. On the CPU the compiled
kernel of `native` does both passes with all steps of a few hundred neurons in the cache; else these are torch's
operations. Where a second derivative is asked for, the backward pass runs the loop instead.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from snnsweep.neurons import native
from snnsweep.neurons.steps import Dynamics, Number, integrate, leak, leak_times, membrane_dtype, unrolled
from snnsweep.neurons.surrogates import Heaviside


def spikes(x: Tensor, threshold: Number, rate: Number, dynamics: Dynamics) -> Tensor:
    """Spikes, 0 or 1 in x's dtype, of the input currents x: both [T, ...]. `rate` as the charge equation takes it."""
    return _Spikes.apply(x, threshold, rate, dynamics)


class _Spikes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Number, rate: Number, dynamics: Dynamics) -> Tensor:
        ctx.dynamics = dynamics
        ctx.numbers = [None if isinstance(number, Tensor) else number for number in (threshold, rate)]
        ctx.save_for_backward(x, *(number for number in (threshold, rate) if isinstance(number, Tensor)))
        if native.takes(x):
            return native.spikes(x, threshold, rate, dynamics)
        return (_membranes(x, threshold, rate, dynamics) - threshold).ge_(0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *learned = ctx.saved_tensors
        threshold, rate = (learned.pop(0) if number is None else number for number in ctx.numbers)
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph
            found = _differentiable(x, threshold, rate, ctx.dynamics, grad, wanted)
        elif native.takes(x):
            gx, *sums = native.gradient(x, grad, threshold, rate, ctx.dynamics, wanted[1:])
            found = (gx, *(_like(a, b) for a, b in zip(sums, (threshold, rate), strict=True)))
        else:
            found = _gradient(x, threshold, rate, ctx.dynamics, grad, wanted)
        return *(one if want else None for one, want in zip(found, wanted, strict=True)), None


def _like(totals: list[float], number: Number) -> Tensor | None:
    return number.new_tensor(totals).view_as(number) if isinstance(number, Tensor) else None


def _total(each: Tensor, number: Number) -> Tensor:
    """Summed to the shape of what it is a gradient of."""
    return each.sum_to_size(number.shape) if isinstance(number, Tensor) else each.sum()


def _surrogate(dynamics: Dynamics, u: Tensor) -> Tensor:
    alpha = dynamics.alpha
    return dynamics.family(u, alpha=alpha.to(u.dtype) if isinstance(alpha, Tensor) else alpha)


def _membranes(x: Tensor, threshold: Number, rate: Number, dynamics: Dynamics) -> Tensor:
    """h [T, ...]."""
    h, v = [], torch.zeros_like(x[0], dtype=membrane_dtype(x))
    for current in x:
        h.append(dynamics.charge(v, current, rate))
        v = _after(h[-1], threshold, dynamics)
    return torch.stack(h)


def _after(h: Tensor, threshold: Number, dynamics: Dynamics) -> Tensor:
    """`steps.reset` in fewer operations, with the same numbers."""
    u = h - threshold
    return u.lt_(0).mul_(h) if dynamics.hard else h - u.ge_(0).mul_(threshold)


def _gradient(
    x: Tensor, threshold: Number, rate: Number, dynamics: Dynamics, grad: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Those of x, threshold and rate that are wanted.

    One operation a step: gh[t] = gs[t] g[t] + gh[t + 1] carry[t], where carry[t] = dh[t + 1] / dh[t] is ready for all
    steps.
    """
    h = _membranes(x, threshold, rate, dynamics)
    u = h - threshold
    g, quiet = _surrogate(dynamics, u), u.lt_(0)
    taken: Number = h if dynamics.hard else threshold  # by a spike, off the membrane
    leaks = {integrate: lambda: 1.0, leak: lambda: 1 - 1 / rate, leak_times: lambda: 1 - rate}[dynamics.charge]()
    carry = (quiet if dynamics.hard else 1.0) - (0.0 if dynamics.detach else taken * g)
    carry = torch.as_tensor(carry * leaks, dtype=h.dtype).expand_as(h)
    gh = grad * g
    direct = _total(gh, threshold)
    for t in reversed(range(len(x) - 1)):
        gh[t].addcmul_(gh[t + 1], carry[t])
    of_rate = of_threshold = None
    if wanted[2]:
        before = torch.cat([torch.zeros_like(h[:1]), _after(h[:-1], threshold, dynamics)])
        of_rate = _total(gh * (x - before), rate)
    if wanted[1]:
        gv = gh[1:] * leaks
        of_reset = 0.0 if dynamics.detach else _total(gv * (taken * g)[:-1], threshold)
        of_threshold = of_reset - direct - (0.0 if dynamics.hard else _total(gv * (1 - quiet[:-1]), threshold))
    return _through_charge(gh, rate, dynamics).to(x.dtype), of_threshold, of_rate


def _through_charge(gh: Tensor, rate: Number, dynamics: Dynamics) -> Tensor:
    if dynamics.charge is integrate:
        return gh
    return gh / rate if dynamics.charge is leak else gh * rate


def _differentiable(
    x: Tensor, threshold: Number, rate: Number, dynamics: Dynamics, grad: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """As `_gradient`, by the loop, and differentiable itself."""
    surrogate = partial(_surrogate, dynamics)
    charge = partial(dynamics.charge, rate=rate)
    out = unrolled(x, charge, lambda t, u: Heaviside.apply(u, surrogate), threshold, dynamics.hard, dynamics.detach)
    inputs = [one for one, want in zip((x, threshold, rate), wanted, strict=True) if want and isinstance(one, Tensor)]
    found = list(torch.autograd.grad(out, inputs, grad, create_graph=True))
    return tuple(found.pop(0) if want else None for want in wanted)
