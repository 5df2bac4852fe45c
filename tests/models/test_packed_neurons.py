"""Neurons with constants for each member of a pack, against a layer for each member: fp32 takes the compiled kernel
where it could be built, float64 torch's operations."""

import itertools

import pytest
import torch
from torch import Tensor

from snnsweep.neurons import fused
from snnsweep.neurons.steps import CHARGES, Dynamics, leak_times
from snnsweep.neurons.surrogates import FAMILIES

MEMBERS = 3
ALPHAS = [1.0, 2.0, 3.5]


def run(
    x: Tensor, grad: Tensor, threshold: Tensor, rate: Tensor, dynamics: Dynamics
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Spikes, and the gradients of the currents, thresholds and rates."""
    x, threshold, rate = (one.detach().clone().requires_grad_() for one in (x, threshold, rate))
    spikes = fused.spikes(x, threshold, rate, dynamics)
    return spikes.detach(), *torch.autograd.grad(spikes, (x, threshold, rate), grad, allow_unused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [5, 1100], ids=["small maps", "maps of several blocks"])
@pytest.mark.parametrize("detach", [True, False])
def test_each_member_has_its_own_constants(dtype: torch.dtype, width: int, detach: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(4, 2, MEMBERS, width, 1, 1, generator=rng).to(dtype) for _ in range(2))
    membrane = torch.promote_types(dtype, torch.float32)
    thresholds = torch.tensor([0.3, 0.6, 1.1], dtype=membrane)
    alphas = torch.tensor(ALPHAS, dtype=torch.float64).view(-1, 1, 1, 1)
    near = {"rtol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    for charge, hard, family in itertools.product(CHARGES, (True, False), FAMILIES):
        rates = torch.tensor([0.4, 0.7, 0.9] if charge is leak_times else [1.3, 2.0, 4.0], dtype=membrane)
        beside = (thresholds.view(-1, 1, 1, 1), rates.view(-1, 1, 1, 1))
        spikes, *found = run(x, grad, *beside, Dynamics(charge, hard, detach, family, alphas))
        assert 0 < spikes.float().mean() < 1
        for k, alpha in enumerate(ALPHAS):
            given = (x[:, :, k], grad[:, :, k], thresholds[k], rates[k], Dynamics(charge, hard, detach, family, alpha))
            alone, of_x, *sums = run(*given)
            assert torch.equal(spikes[:, :, k], alone)
            assert torch.allclose(found[0][:, :, k], of_x, rtol=1e-5, atol=1e-7)
            for mine, theirs in zip(found[1:], sums, strict=True):
                assert theirs is None or torch.allclose(mine[k].flatten()[0], theirs, **near)
