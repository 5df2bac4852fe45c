"""K models of one architecture as one: in every layer the members' channels lie side by side, [T, N, K * C, H, W].

Pooling, encoders and the joining of branches act on each channel and stay what they are; convolutions become grouped
ones; statistics of a batch norm are per channel, and so per member, anyway; neurons get constants of their own for
each member; the readout is a batched product. What stands between the layers (blocks, stages, whole networks) runs
unchanged, so that a pack has the operations of one model, whatever K (horizontal fusion: Wang et al., HFTA, MLSys
2021, arXiv 2102.02344).

Every parameter and buffer of a pack has the name of the members' and the shape [K, ...].
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from snnsweep import encoders, neurons
from snnsweep.models import base, norm
from snnsweep.models.packed_neurons import CHARGES, PackedNeuron


class PackedLayer(nn.Module):
    """A layer of every member, of one class and shape; parameters and buffers are stacked, constants the first one's.

    Args:
        members: K layers.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = len(members)
        for name, parameter in members[0].named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(stacked(members, name), parameter.requires_grad))
        for name, _ in members[0].named_buffers(recurse=False):
            self.register_buffer(name, stacked(members, name))


class Conv(PackedLayer):
    """One grouped convolution, a group a member."""

    weight: Tensor

    def __init__(self, members: Sequence[nn.Conv2d]):
        super().__init__(members)
        self.stride, self.padding, self.kernel_size = members[0].stride, members[0].padding, members[0].kernel_size

    def forward(self, x: Tensor) -> Tensor:
        if not base.unwritten(x, self.stride, self.kernel_size):
            return self._convolved(x)
        with torch.autocast("cpu", enabled=False):
            return self._convolved(x.float()).to(torch.bfloat16)

    def _convolved(self, x: Tensor) -> Tensor:
        weight = self.weight.flatten(0, 1)
        out = conv2d(x.flatten(0, 1), weight, None, self.stride, self.padding, groups=self.members)
        return out.unflatten(0, x.shape[:2])


class Norm(PackedLayer):
    """Batch normalisation of all members' channels at once."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: Sequence[nn.BatchNorm2d]):
        super().__init__(members)
        self.momentum, self.eps = members[0].momentum, members[0].eps

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        return self._normed(x, self.weight)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        mean, var, bias = (tensor.flatten() for tensor in (self.running_mean, self.running_var, self.bias))
        given = (mean, var, weight.flatten(), bias, self.training, self.momentum, self.eps)
        return batch_norm(x.flatten(0, 1), *given).unflatten(0, x.shape[:2])  # type: ignore[arg-type]  # momentum


class ThresholdDependentNorm(Norm):
    """`tdbn`, with each member's own scale."""

    scale: Tensor

    def __init__(self, members: Sequence[norm.ThresholdDependent]):
        super().__init__(members)
        scales = self.weight.new_tensor([member.scale for member in members])
        self.register_buffer("scale", scales[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._normed(x, self.scale * self.weight)


class Readout(PackedLayer):
    """[T, N, K * inputs] -> [T, N, K * classes]."""

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1).unflatten(1, (self.members, -1)).transpose(0, 1)
        out = torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.mT)
        return out.transpose(0, 1).flatten(1).unflatten(0, x.shape[:2])


class Normalize(PackedLayer):
    """As `base.Normalize`."""

    mean: Tensor
    std: Tensor

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.mean.flatten(0, 1)) / self.std.flatten(0, 1)


_PACKED: dict[type[nn.Module], type[PackedLayer]] = {
    base.Conv2d: Conv,
    norm.Batch: Norm,
    norm.ThresholdDependent: ThresholdDependentNorm,
    nn.Linear: Readout,
    base.Normalize: Normalize,
}
_PER_CHANNEL = (base.MaxPool2d, base.AvgPool2d, base.AdaptiveAvgPool2d, neurons.ReLU)
_DETERMINISTIC = (encoders.Direct, encoders.Phase, encoders.Latency, encoders.Frames)


class PackedModel(nn.Module):
    """K models as one.

    Args:
        members: `SNN`s of one architecture, with no part that `unknown_part` names; they are copied.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members, first = len(members), members[0]
        assert isinstance(first, base.SNN)
        self.inner = copy.deepcopy(first)
        like = next(first.parameters())
        for name, module in first.named_modules():
            layers: list[Any] = [member.get_submodule(name) for member in members]
            if type(module) in CHARGES:
                self.inner.set_submodule(name, PackedNeuron(layers, like))
            elif type(module) in _PACKED:
                self.inner.set_submodule(name, _PACKED[type(module)](layers))

    def forward_steps(self, x: Tensor) -> Tensor:
        """Logits [T, N, K, classes] of each time step, of the members' images [K, N, ...] in [0, 1]."""
        z = self.inner.encode(x.movedim(0, -4).flatten(-4, -3))
        return self.inner.forward_steps(z).unflatten(2, (self.members, -1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [K, N, classes] of the members' images [K, N, ...] in [0, 1]."""
        return self.forward_steps(x).mean(0).movedim(1, 0)

    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer of a member by its name there, [K, ...]."""
        return self.inner.state_dict()

    @torch.no_grad()
    def write_back(self, members: Sequence[nn.Module]) -> None:
        """Copies parameters and buffers into the models that were packed, or such as they."""
        state = self.state()
        for i, member in enumerate(members):
            for name, tensor in member.state_dict().items():
                tensor.copy_(state[name][i])


def unknown_part(model: nn.Module) -> str:
    """What of a model no pack can hold, as `network.stem.neuron is a PSN`; "" where it can be packed.

    A part of the user's own, or built from one, may do with channels what it likes, and is not taken.
    """
    for name, module in model.named_modules():
        kind = type(module)
        where = f"{name or 'the model'} is a {kind.__name__}"
        if getattr(module, "random", False) and not list(module.children()):
            return f"{where} that draws random numbers"
        if kind not in (*_PACKED, *CHARGES, *_PER_CHANNEL, *_DETERMINISTIC) and not _is_container(module):
            return where
        if isinstance(module, neurons.SpikingNeuron) and (problem := PackedNeuron.refuses(module)):
            return f"{where} with {problem}"
    return ""


def _is_container(module: nn.Module) -> bool:
    """Only calls its layers, and joins what they give element by element."""
    built_in = type(module) is nn.Sequential or type(module).__module__.startswith("snnsweep.models.")
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return built_in and not own and bool(list(module.children()))


def stacked(members: Sequence[nn.Module], name: str) -> Tensor:
    """The members' tensors of that name, [K, ...]."""
    return torch.stack([getattr(member, name).detach() for member in members])
