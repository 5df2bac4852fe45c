"""The rule for max pooling, which routes a gradient to one of many equal spikes and starves the rest."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, unfold

from snnsweep.attacks.rules.base import register, ruled, value_of
from snnsweep.errors import UserError


@register("pool")
@dataclass(frozen=True)
class Pool:
    """Every max pooling passes back the gradient of average pooling, or of a soft maximum.

    Of a window with the inputs x_i the gradient is that of (1 / b) log sum_i exp(b x_i), the softmax of b x, with
    b = `sharpness`; 0 is the average. Only real inputs count, none of the padding. It acts on `nn.MaxPool2d`, in
    networks of neurons and of ReLUs.

    Attributes:
        sharpness: b, at least 0; a spike is passed e^b times what a silent input is.
    """

    sharpness: float = 0.0
    of_spikes: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.sharpness < inf:
            raise UserError(f"pool: sharpness is 0 (average pooling) or above, and finite; given {self.sharpness}")

    def changes_nothing(self, model: nn.Module) -> bool:
        """Whether there is no max pooling."""
        return not _pools(model)

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return ruled(_pools(model), lambda pool: {"forward": partial(self._forward, pool, pool.forward)})

    def _forward(self, pool: nn.MaxPool2d, exact: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.no_grad():
            value = exact(x)
        maps = x.reshape(-1, 1, *x.shape[-2:])
        if self.sharpness == 0 and _pair(pool.dilation) == (1, 1):
            stand_in = avg_pool2d(maps, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, False)
        else:
            windows = _windows(pool, maps, value.shape[-2:])
            real = windows > -inf
            weight = torch.where(real, self.sharpness * windows.detach(), -inf).softmax(1)
            stand_in = (weight * torch.where(real, windows, 0.0)).sum(1)
        return value_of(value, stand_in.view(value.shape))


def _pools(model: nn.Module) -> list[nn.MaxPool2d]:
    return [module for module in model.modules() if isinstance(module, nn.MaxPool2d)]


def _windows(pool: nn.MaxPool2d, maps: Tensor, shape: torch.Size) -> Tensor:
    """The inputs of each window of the maps [M, 1, H, W] as [M, window, H' W'], with -inf for padding."""
    kernel, stride, padding, dilation = map(_pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
    edges: list[int] = []
    for i in (1, 0):  # what the last window reaches over the edge; less than nothing where it does not reach it
        span = (shape[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
        edges += [padding[i], span - padding[i] - maps.shape[2 + i]]
    return unfold(pad(maps, edges, value=-inf), kernel, dilation, stride=stride)


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)
