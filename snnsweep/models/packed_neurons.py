"""Neurons of K members in one layer, each with its own threshold, tau and surrogate width."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from snnsweep import neurons
from snnsweep.neurons import SpikingNeuron, _Heaviside


class PackedNeuron(nn.Module):
    """IF, LIF or PLIF layers of K members, of one reset and one surrogate family, over [T, N, K * C, ...].

    The equations are those of `neurons`. A constant that all members share stays a plain number, as in a single model.

    Args:
        members: K layers, none of which `refuses` names a reason against.
    """

    v_threshold: Tensor | float
    tau: Tensor | float
    alpha: Tensor | float

    def __init__(self, members: Sequence[SpikingNeuron]):
        super().__init__()
        self.members, self.first = len(members), type(members[0])
        self.hard, self.detach_reset = members[0].reset == "hard", members[0].detach_reset
        for name, _ in members[0].named_parameters():
            self.register_parameter(name, nn.Parameter(torch.stack([getattr(one, name).detach() for one in members])))
        self._constant("v_threshold", [member.v_threshold for member in members])
        self._constant("tau", [getattr(member, "tau", 1.0) for member in members])
        self._constant("alpha", [_surrogate(member).keywords["alpha"] for member in members])
        self.family = _surrogate(members[0]).func

    @staticmethod
    def refuses(member: nn.Module) -> str:
        """Why such a layer cannot be packed; "" where it can."""
        surrogate = getattr(member, "surrogate", None)
        if isinstance(surrogate, partial) and surrogate.func.__module__.startswith("snnsweep."):
            return "" if set(surrogate.keywords) == {"alpha"} and not surrogate.args else "a surrogate of its own"
        return "a surrogate of its own"

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1 in x's dtype, of the input currents x: both [T, N, K * C, ...]."""
        x = x.unflatten(2, (self.members, -1))
        v = torch.zeros_like(x[0], dtype=torch.promote_types(x.dtype, torch.float32))
        threshold, rate = _for(v, self._threshold()), _for(v, self._rate())
        surrogate = partial(self.family, alpha=_for(v, self.alpha))
        spikes = []
        for current in x:
            v = self._charge(v, current, rate)
            spike = _Heaviside.apply(v - threshold, surrogate)
            spikes.append(spike)
            fired = spike.detach() if self.detach_reset else spike
            v = v * (1 - fired) if self.hard else v - fired * threshold
        return torch.stack(spikes).to(x.dtype).flatten(2, 3)

    def _threshold(self) -> Tensor | float:
        learned = self._parameters.get("w_threshold")
        return self.v_threshold if learned is None else self.v_threshold * learned.exp()

    def _rate(self) -> Tensor | float:
        learned = self._parameters.get("w")
        return self.tau if learned is None else learned.sigmoid()

    def _charge(self, v: Tensor, x: Tensor, rate: Tensor | float) -> Tensor:
        if self.first is neurons.IF:
            return v + x
        return v + (x - v) * rate if self.first is neurons.PLIF else v + (x - v) / rate

    def _constant(self, name: str, values: list[float]) -> None:
        if len(set(values)) == 1:
            setattr(self, name, values[0])
        else:
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)


def _for(v: Tensor, value: Tensor | float) -> Tensor | float:
    """A member's constant each, [K], beside a membrane [N, K, C, ...]."""
    return value.to(v.dtype).view(-1, *[1] * (v.dim() - 2)) if isinstance(value, Tensor) else value


def _surrogate(member: SpikingNeuron) -> partial:
    assert isinstance(member.surrogate, partial)
    return member.surrogate
