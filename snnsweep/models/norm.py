"""Norms: what follows a convolution. A norm is a class or function `(channels, config, branches=1) -> nn.Module`.

Its module maps [T, N, C, H, W] to the same shape; `branches` is the number of normed branches that are added up where
this one ends (2 for the last norm of a residual block and of its projection, else 1).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from snnsweep.config import TrialConfig
from snnsweep.models.base import BatchNorm2d
from snnsweep.models.rest import derived, normed
from snnsweep.registry import norms

register, get, names = norms.register, norms.get, norms.names


@register("batch")
class Batch(BatchNorm2d):
    """Batch normalisation with statistics over all time steps (Ioffe and Szegedy, 2015, arXiv 1502.03167)."""

    def __init__(self, channels: int, config: TrialConfig, branches: int = 1):
        super().__init__(channels)


@register("tdbn")
class ThresholdDependent(BatchNorm2d):
    """Threshold-dependent batch normalisation: to the scale of the threshold (Zheng et al., 2021, arXiv 2011.05280).

    weight * (alpha * V_th * (x - mean) / sqrt(var + eps)) + bias, statistics over all time steps and samples;
    V_th = `neuron.v_threshold`, alpha = 1 / sqrt(branches). The scale stands inside the affine (weight 1, bias 0 at
    the start) and is not learned.
    """

    def __init__(self, channels: int, config: TrialConfig, branches: int = 1):
        super().__init__(channels)
        self.scale = config.neuron.v_threshold / math.sqrt(branches)

    def _steps(self, x: Tensor) -> Tensor:
        weight, flat = derived((self, "weight"), lambda: self.scale * self.weight), x.flatten(0, 1)
        if self.training:
            means, momentum = (self.running_mean, self.running_var), self.momentum
            out = batch_norm(flat, *means, weight, self.bias, True, momentum, self.eps)  # type: ignore[arg-type]
        else:
            out = normed(self, flat, weight)
        return out.unflatten(0, x.shape[:2])


@register("tebn")
class TemporalEffective(BatchNorm2d):
    """Temporal effective batch normalisation: a learned scale for every time step (Duan et al., NeurIPS 2022).

    p[t] * batch(x)[t], statistics and affine over all time steps in common; p [T] is one scale for all channels,
    1 at the start.
    """

    def __init__(self, channels: int, config: TrialConfig, branches: int = 1):
        super().__init__(channels)
        self.p = nn.Parameter(torch.ones(config.encoder.time_steps, 1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return self.p.to(out.dtype) * out  # else bf16 currents would become fp32
