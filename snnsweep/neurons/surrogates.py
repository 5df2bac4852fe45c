"""Surrogates: what stands for the spike's derivative.

A surrogate is g(u) = alpha k(alpha u) of u = v - th, with k even and of mass 1: 1 / alpha is the width, common to all.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snnsweep import registry

# u = membrane - threshold -> what stands for the spike's derivative there, in u's shape.
Surrogate = Callable[[Tensor], Tensor]

register_surrogate = registry.surrogates.register


@register_surrogate("atan")
def atan(u: Tensor, alpha: float) -> Tensor:
    """Derivative of arctan(pi/2 alpha u) / pi + 1/2 (Fang et al., 2021, arXiv 2007.05785)."""
    return (alpha / 2) / (1 + (math.pi / 2 * alpha * u) ** 2)


@register_surrogate("sigmoid")
def sigmoid(u: Tensor, alpha: float) -> Tensor:
    """Derivative of the logistic function of alpha u (Neftci et al., 2019, arXiv 1901.09948)."""
    s = torch.sigmoid(alpha * u)
    return alpha * s * (1 - s)


@register_surrogate("triangle")
def triangle(u: Tensor, alpha: float) -> Tensor:
    """alpha max(0, 1 - alpha |u|) (Bellec et al., 2018, arXiv 1803.09574; Deng et al., 2022, arXiv 2202.11946).

    Deng's gamma is 1 / alpha. Bellec's v is u / th and damped by 0.3: alpha = 1 / th, but here without the damping.
    """
    return alpha * (1 - alpha * u.abs()).clamp(min=0)


@register_surrogate("rectangle")
def rectangle(u: Tensor, alpha: float) -> Tensor:
    """alpha / 2 where |u| < 1 / alpha, else 0 (STBP, Wu et al., 2018, arXiv 1706.02609; its a1 is 2 / alpha)."""
    return alpha / 2 * (alpha * u.abs() < 1).to(u.dtype)


@register_surrogate("gaussian")
def gaussian(u: Tensor, alpha: float) -> Tensor:
    """Normal density with standard deviation 1 / alpha (Wu et al., 2018; Yin et al., 2021, arXiv 2103.12593).

    STBP's a4 is the variance, alpha^-2; Yin's sigma is 1 / alpha, of the central one of their three normal densities.
    """
    return alpha / math.sqrt(2 * math.pi) * torch.exp(-((alpha * u) ** 2) / 2)


# In the order in which the compiled kernel numbers them.
FAMILIES = (atan, sigmoid, triangle, rectangle, gaussian)


class Heaviside(torch.autograd.Function):
    """1[u >= 0] with a surrogate derivative; differentiable twice where the surrogate is differentiable."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad * ctx.surrogate(u), None
