"""What every model shares: image -> code -> network -> logits, and layers that act on each time step alike."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snnsweep.config import ImageSpec
from snnsweep.models.rest import convolve, laid_out, normed


def once(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """layer(x) of a layer that treats every time step of x [T, ...] alike: equal steps are computed once.

    Steps are known to be equal where x is an expanded view, with stride 0 over T, as direct coding gives it; then the
    result is one too, and the gradient sums over T before it goes through the layer. It ends at the first step of x:
    who wants the gradient of every step of a code asks at a copy of it (`contiguous`). A leaf counts as such.
    """
    if len(x) < 2 or x.stride(0) != 0 or (x.is_leaf and x.requires_grad):
        return layer(x)
    step: Tensor | None = getattr(x, "step", None)  # of an earlier layer, which the gradient reaches at once
    out = layer(x[:1] if step is None else step)
    steps: Any = out.expand(len(x), *out.shape[1:])
    steps.step = out
    return steps


def unwritten(x: Tensor, stride: tuple[int, ...], kernel_size: tuple[int, ...]) -> bool:
    """On the CPU torch 2.11 leaves most of a strided bf16 convolution's weight gradient unwritten on 1x1 maps."""
    if x.device.type != "cpu" or x.shape[-2:] != (1, 1) or 1 in (*stride, *kernel_size):
        return False
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _PerStep(nn.Module):
    """Runs the layer class that follows it among the bases on [T * N, ...], so that batch statistics are over T * N.

    Equal steps are computed once. Not where batch statistics are taken: those of N samples are those of T * N copies,
    but the running variance is estimated for another number of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and isinstance(self, nn.modules.batchnorm._BatchNorm):
            return self._steps(x)
        return once(self._steps, x)

    def _steps(self, x: Tensor) -> Tensor:
        """The layer on every step of x, [T, N, ...]."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Conv2d(_PerStep, nn.Conv2d):
    """[T, N, C, H, W] -> [T, N, C', H', W']."""

    def forward(self, x: Tensor) -> Tensor:
        if not unwritten(x, self.stride, self.kernel_size):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.bfloat16)

    def _steps(self, x: Tensor) -> Tensor:
        return convolve(self, x.flatten(0, 1)).unflatten(0, x.shape[:2])


class BatchNorm2d(_PerStep, nn.BatchNorm2d):
    """[T, N, C, H, W] -> the same shape."""

    def _steps(self, x: Tensor) -> Tensor:
        plain = None in (self.weight, self.running_mean, self.running_var)
        if self.training or plain:
            return super()._steps(x)
        return normed(self, x.flatten(0, 1), self.weight).unflatten(0, x.shape[:2])


class MaxPool2d(_PerStep, nn.MaxPool2d):
    """[T, N, C, H, W] -> [T, N, C, H', W']."""

    def _steps(self, x: Tensor) -> Tensor:
        return nn.MaxPool2d.forward(self, laid_out(x.flatten(0, 1))).unflatten(0, x.shape[:2])


class AvgPool2d(_PerStep, nn.AvgPool2d):
    """[T, N, C, H, W] -> [T, N, C, H', W']."""


class AdaptiveAvgPool2d(_PerStep, nn.AdaptiveAvgPool2d):
    """[T, N, C, H, W] -> [T, N, C, H', W']."""


class Normalize(nn.Module):
    """(z - mean) / std per channel of [T, ..., C, H, W]; equal steps are computed once."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        return once(lambda steps: (steps - self.mean) / self.std, z)


class Classifier(nn.Module):
    """What is attacked and measured: a classifier of images in [0, 1], in two halves, code and network.

    Attributes:
        network: what works on the code; layers are named by their place in it.
    """

    network: nn.Module

    @property
    def random(self) -> bool:
        """Whether two calls on one image may differ, by the encoder's noise or a neuron's."""
        return any(getattr(module, "random", False) for module in self.modules() if module is not self)

    def encode(self, x: Tensor) -> Tensor:
        """The code [T, N, C, H, W] of the images x, [N, C, H, W] in [0, 1]."""
        raise NotImplementedError

    def forward_encoded(self, z: Tensor) -> Tensor:
        """Logits [N, classes] of the code z, [T, N, C, H, W] as `encode` gives it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of the images x, [N, C, H, W] in [0, 1]."""
        return self.forward_encoded(self.encode(x))


class SNN(Classifier):
    """A spiking classifier of images in [0, 1]: encoder, normalisation, network, mean over time.

    Normalisation comes after the encoder, because encoders read pixels in [0, 1], and is left out where the code is
    spikes: a spike stays 0 or 1, so that a later layer's input events can be counted as such.

    Args:
        encoder: [N, C, H, W] -> [T, N, C, H, W], with the bool attributes `binary` (its code is spikes) and `random`
            (each call draws fresh noise). Of event data the samples are [N, T, C, H, W].
        network: [T, N, C, H, W] -> [T, N, classes].
        spec: brings the channels' mean and standard deviation.
    """

    def __init__(self, encoder: nn.Module, network: nn.Module, spec: ImageSpec):
        super().__init__()
        self.encoder = encoder
        self.normalize = Normalize(spec.mean, spec.std)
        self.network = network

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def forward_encoded(self, z: Tensor) -> Tensor:
        """Logits [N, classes] of the code z: the mean over time of `forward_steps`."""
        return self.forward_steps(z).mean(0)

    def forward_steps(self, z: Tensor) -> Tensor:
        """Logits [T, N, classes] of each time step of the code z, [T, N, C, H, W] as `encode` gives it."""
        return self.network(z if self.encoder.binary else self.normalize(z))
