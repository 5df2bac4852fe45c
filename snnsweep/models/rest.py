"""Layers whose parameters are at rest: what a gradient of the input alone needs of them, and no more.

Forward values are torch's own, bit for bit. Of a layer whose parameters ask for no gradient nothing is kept but what
stands for its parameters: torch keeps the inputs of a convolution and of a batch norm in any case.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

WIDE = 16  # positions of a map

_derived: ContextVar[dict[Hashable, Tensor] | None] = ContextVar("derived", default=None)
_turned: ContextVar[list[nn.Parameter]] = ContextVar("turned")


@contextmanager
def at_rest() -> Iterator[None]:
    """Inside, no parameter or buffer changes: what layers derive from theirs is computed once.

    A weight may lie in another order there, with the same values; afterwards it lies as before.
    """
    token, turned = _derived.set({}), _turned.set([])
    try:
        yield
    finally:
        for weight in _turned.get():
            weight.data = weight.data.contiguous()
        _derived.reset(token)
        _turned.reset(turned)


def derived(key: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives; while parameters are at rest, what it gave the first time."""
    kept = _derived.get()
    if kept is None:
        return make()
    if key not in kept:
        kept[key] = make()
    return kept[key]


@lru_cache(maxsize=1024)
def taps(size: int, kernel: int, stride: int, padding: int) -> tuple[int, int, int]:
    """Along one side: the first tap of a kernel that meets an input of that size, the one after the last, the padding.

    The taps beyond meet padding alone. All of them where what is left would need unequal padding.
    """
    outputs = (size + 2 * padding - kernel) // stride + 1
    met = [tap for tap in range(kernel) if any(0 <= at * stride - padding + tap < size for at in range(outputs))]
    if not met:
        return 0, kernel, padding
    first, end = met[0], met[-1] + 1
    before = padding - first
    after = (outputs - 1) * stride + (end - first) - size - before
    return (first, end, before) if before == after >= 0 else (0, kernel, padding)


def laid_out(x: Tensor) -> Tensor:
    """x [M, C, H, W] as a CPU is fastest with it in torch 2.11, twice as fast with some convolutions.

    Channels last, where a map has at least `WIDE` positions, else channels first. What lies between keeps the order.
    """
    return x.contiguous(memory_format=_layout(x)) if x.device.type == "cpu" else x


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.shape[-2] * x.shape[-1] >= WIDE else torch.contiguous_format


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution of x [M, C, H, W], without the taps that meet padding alone: most of them, where maps are small.

    The input is `laid_out`, and so is the result.
    """
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or conv.dilation != (1, 1):
        return nn.Conv2d.forward(conv, x)
    sides = zip(x.shape[-2:], conv.kernel_size, conv.stride, conv.padding, strict=True)
    (top, bottom, high), (left, right, wide) = (taps(*side) for side in sides)
    weight, window = conv.weight, (top, bottom, left, right)
    if (bottom - top, right - left) != conv.kernel_size:
        weight = derived((conv, window), lambda: conv.weight[..., top:bottom, left:right].contiguous())
    if x.device.type == "cpu":
        x, weight = laid_out(x), _weight_for(x, (conv, window), weight)
    settings = conv.stride, (high, wide), conv.dilation, conv.groups
    if _at_rest(x, conv.weight, conv.bias):
        return _Convolution.apply(x, weight, conv.bias, *settings)
    return conv2d(x, weight, conv.bias, *settings)


def _weight_for(x: Tensor, key: Hashable, weight: Tensor) -> Tensor:
    """The weight in the layout of x: a parameter at rest is turned to it, so that it is there once."""
    layout = _layout(x)
    if weight.is_contiguous(memory_format=layout):
        return weight
    if _derived.get() is None or not isinstance(weight, nn.Parameter) or weight.requires_grad:
        return derived((key, layout), lambda: weight.contiguous(memory_format=layout))
    if weight.is_contiguous():  # as it is to lie again; another layer's map may have turned it already
        _turned.get().append(weight)
        weight.data = weight.data.contiguous(memory_format=layout)
        return weight
    return derived((key, layout), lambda: weight.contiguous(memory_format=layout))


def normed(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor) -> Tensor:
    """x [M, C, H, W] by the running statistics and the bias of a batch norm, with that weight [C] for its own."""
    mean, variance = norm.running_mean, norm.running_var
    if _at_rest(x, norm.weight, norm.bias):
        assert variance is not None
        scale = derived(norm, lambda: (weight * (variance + norm.eps).rsqrt()).view(-1, 1, 1))
        return _Norm.apply(x, mean, variance, weight, norm.bias, norm.eps, scale)
    return batch_norm(x, mean, variance, weight, norm.bias, False, 0.0, norm.eps)


def _at_rest(x: Tensor, *parameters: Tensor | None) -> bool:
    return (
        x.requires_grad and torch.is_grad_enabled() and not any(p is not None and p.requires_grad for p in parameters)
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.like, ctx.settings = torch.empty_like(x, device="meta"), settings
        return conv2d(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (weight,), (stride, padding, dilation, groups) = ctx.saved_tensors, ctx.settings
        like = torch.empty_like(ctx.like, device=grad.device)  # of the input its shape and layout alone count
        geometry = list(stride), list(padding), list(dilation), False, [0, 0], groups
        found = torch.ops.aten.convolution_backward(grad, like, weight, None, *geometry, [True, False, False])
        return found[0], *[None] * 6


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, scale: Tensor
    ) -> Tensor:
        ctx.save_for_backward(scale)
        return batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.saved_tensors[0], *[None] * 6
