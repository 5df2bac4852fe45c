"""Neurons of K members in one layer, each with its own threshold, tau and surrogate width."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from snnsweep.neurons import IF, LIF, PLIF, SpikingNeuron, fused
from snnsweep.neurons.steps import Dynamics, Number, integrate, leak, leak_times
from snnsweep.neurons.surrogates import FAMILIES

CHARGES = {IF: integrate, LIF: leak, PLIF: leak_times}


class PackedNeuron(nn.Module):
    """IF, LIF or PLIF layers of K members, of one reset and one surrogate family, over [T, N, K * C, ...].

    A constant that all members share stays a plain number, as in a single layer.

    Args:
        members: K layers, none of which `refuses` names a reason against.
        like: of the pack's dtype, on its device.
    """

    v_threshold: Number
    tau: Number
    alpha: Number

    def __init__(self, members: Sequence[SpikingNeuron], like: Tensor):
        super().__init__()
        self.members, first = len(members), members[0]
        self.charge, self.family = CHARGES[type(first)], _surrogate(first).func
        self.hard, self.detach = first.reset == "hard", first.detach_reset
        for name, _ in first.named_parameters():
            self.register_parameter(name, nn.Parameter(torch.stack([getattr(one, name).detach() for one in members])))
        self._constant("v_threshold", [member.v_threshold for member in members], like)
        self._constant("tau", [getattr(member, "tau", 1.0) for member in members], like)
        self._constant("alpha", [_surrogate(member).keywords["alpha"] for member in members], like[:0].double())

    @staticmethod
    def refuses(member: SpikingNeuron) -> str:
        """Why such a layer cannot be packed; "" where it can."""
        surrogate = member.surrogate
        if isinstance(surrogate, partial) and surrogate.func in FAMILIES and list(surrogate.keywords) == ["alpha"]:
            return ""
        return "a surrogate of its own"

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1 in x's dtype, of the input currents x: both [T, N, K * C, ...]."""
        x = x.unflatten(2, (self.members, -1))
        beside = partial(_beside, dimensions=x.dim() - 2)
        dynamics = Dynamics(self.charge, self.hard, self.detach, self.family, beside(self.alpha))
        return fused.spikes(x, beside(self._threshold()), beside(self._rate()), dynamics).flatten(2, 3)

    def _threshold(self) -> Number:
        learned = self._parameters.get("w_threshold")
        return self.v_threshold if learned is None else self.v_threshold * learned.exp()

    def _rate(self) -> Number:
        learned = self._parameters.get("w")
        return self.tau if learned is None else learned.sigmoid()

    def _constant(self, name: str, values: list[float], like: Tensor) -> None:
        if len(set(values)) == 1:
            setattr(self, name, values[0])
        else:
            self.register_buffer(name, like.new_tensor(values), persistent=False)


def _beside(number: Number, dimensions: int) -> Number:
    """[K] -> [K, 1, ...]."""
    return number.view(-1, *[1] * (dimensions - 1)) if isinstance(number, Tensor) else number


def _surrogate(member: SpikingNeuron) -> partial:
    assert isinstance(member.surrogate, partial)
    return member.surrogate
