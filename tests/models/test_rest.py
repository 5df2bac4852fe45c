"""Layers at rest, equal steps, kernels without idle taps, folded norms: against torch's own layers in float64."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from snnsweep import models
from snnsweep.attacks.base import frozen
from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.models import rest
from snnsweep.models.base import BatchNorm2d, Conv2d, MaxPool2d, once
from snnsweep.models.folding import folded
from snnsweep.models.rest import convolve, taps

RGB = ImageSpec(3, 16, 16, 5, (0.5,) * 3, (0.25,) * 3)


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 3), st.integers(0, 3))
def test_taps_that_meet_the_input(size: int, kernel: int, stride: int, padding: int) -> None:
    """Brute force: a kernel of one tap alone, on ones, is 0 everywhere where the tap meets padding alone."""
    if size + 2 * padding < kernel:
        return
    first, end, before = taps(size, kernel, stride, padding)
    ones = torch.ones(1, 1, 1, size)
    for tap in range(kernel):
        single = torch.zeros(1, 1, 1, kernel)
        single[..., tap] = 1
        if conv2d(ones, single, stride=(1, stride), padding=(0, padding)).any():
            assert first <= tap < end
    whole = torch.rand(1, 1, 1, kernel, dtype=torch.float64)
    x = torch.rand(1, 1, 1, size, dtype=torch.float64)
    expected = conv2d(x, whole, stride=(1, stride), padding=(0, padding))
    torch.testing.assert_close(
        conv2d(x, whole[..., first:end], stride=(1, stride), padding=(0, before)), expected, atol=1e-12, rtol=0
    )


def test_most_taps_of_a_small_map_are_idle() -> None:
    assert taps(1, 3, 1, 1) == (1, 2, 0)
    assert taps(2, 3, 2, 1) == (1, 3, 0)
    assert taps(2, 3, 1, 1) == (0, 3, 1)
    assert taps(8, 7, 2, 3) == (0, 7, 3)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        Conv2d(3, 6, 3, padding=1, bias=False), BatchNorm2d(6), MaxPool2d(2), Conv2d(6, 4, 3, 2, padding=1)
    ).double()
    norm = made[1]
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.uniform_(-1, 1)
    return made


def plain(made: nn.Sequential, x: Tensor) -> Tensor:
    """The same by torch's own classes, on every step."""
    out = x.flatten(0, 1)
    for layer in made:
        out = type(layer).__mro__[2].forward(layer, out)
    return out.unflatten(0, x.shape[:2])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans(), st.booleans())
def test_values_and_gradients_are_torchs(side: int, steps: int, equal: bool, at_rest: bool, train: bool) -> None:
    made, same = layers().train(train), layers().train(train)
    base = torch.rand((1 if equal else steps, 2, 3, side + 1, side + 1), dtype=torch.float64).requires_grad_()
    x = base.expand(steps, *base.shape[1:])
    ours, theirs = made(x), plain(same, x)
    torch.testing.assert_close(ours, theirs)
    for buffer, value in zip(made.buffers(), same.buffers(), strict=True):
        torch.testing.assert_close(buffer, value)
    weight = torch.rand_like(theirs)
    expected = torch.autograd.grad((theirs * weight).sum(), [base, *same.parameters()])
    if at_rest and not train:
        with frozen(made):
            found = torch.autograd.grad((made(x) * weight).sum(), base)
    else:
        found = torch.autograd.grad((ours * weight).sum(), [base, *made.parameters()])
    for a, b in zip(found, expected, strict=False):
        torch.testing.assert_close(a, b)


def test_equal_steps_are_computed_once_and_a_leaf_has_its_own_gradient() -> None:
    rows: list[int] = []

    def layer(x: Tensor) -> Tensor:
        rows.append(len(x))
        return x * torch.arange(1.0, 3.0)

    image = torch.rand(2, requires_grad=True)
    out = once(layer, once(layer, image.expand(5, 2)))
    assert rows == [1, 1]
    assert out.shape == (5, 2)
    assert out.stride(0) == 0
    (grad,) = torch.autograd.grad(out.sum(), image)
    assert grad.tolist() == [5, 20]
    leaf = image.detach().expand(5, 2).requires_grad_()
    (grad,) = torch.autograd.grad(once(layer, leaf).sum(), leaf)
    assert grad.tolist() == [[1, 2]] * 5


def test_of_layers_at_rest_their_parameters_alone_are_kept() -> None:
    made, x = layers().eval()[:2], torch.rand((2, 3, 3, 8, 8), dtype=torch.float64, requires_grad=True)
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), frozen(made):
        made(x)
    assert sorted(kept) == [(6, 1, 1), (6, 3, 3, 3)]


def test_what_is_derived_from_parameters_is_forgotten_when_they_may_change() -> None:
    made, x = layers().eval(), torch.rand((2, 3, 3, 8, 8), dtype=torch.float64)
    with frozen(made):
        before = made(x)
    made[1].weight.data.mul_(2)
    with frozen(made):
        assert not torch.equal(made(x), before)
        torch.testing.assert_close(made(x), plain(made, x))
    assert rest._derived.get() is None


def test_a_weight_at_rest_is_there_once_and_lies_as_before_afterwards() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    wide, narrow = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 2, 2)
    before, strides = conv.weight.detach().clone(), conv.weight.stride()
    expected = conv(wide), conv(narrow)
    with frozen(conv):
        for x, answer in zip((wide, narrow), expected, strict=True):
            torch.testing.assert_close(convolve(conv, x), answer)
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert [tuple(copy.shape) for copy in rest._derived.get().values()] == [(8, 3, 3, 3)]  # the narrow map's
    assert conv.weight.stride() == strides
    assert torch.equal(conv.weight, before)
    convolve(conv, wide).sum().backward()
    assert conv.weight.grad.stride() == strides


@pytest.mark.parametrize("norm", ["batch", "tdbn", "tebn"])
@pytest.mark.parametrize("residual", ["sew_add", "membrane"])
def test_folded_answers_are_the_models(norm: str, residual: str) -> None:
    """In float64, where rounding turns no spike; `tebn` keeps its norms."""
    flat: dict[str, Any] = {"model.depth": 10, "model.width": 0.1, "model.norm": norm, "model.residual": residual}
    torch.manual_seed(0)
    model = models.build(
        TrialConfig.from_flat({**flat, "encoder.time_steps": 3, "neuron.v_threshold": 0.3}), RGB
    ).double()
    x = torch.rand(6, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = folded(model, x[:1])
    norms = [part for part in copy.modules() if isinstance(part, BatchNorm2d)]
    assert bool(norms) == (norm == "tebn")
    torch.testing.assert_close(copy(x), model(x))
    assert model(x).std() > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_norm_that_shares_its_convolution_is_not_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shared = Conv2d(3, 3, 1), Conv2d(3, 3, 1)
            self.one, self.other, self.after = BatchNorm2d(3), BatchNorm2d(3), BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv(x)
            return self.one(out) + self.other(out) + self.after(self.shared(self.shared(x)))

    model, x = Twice().eval(), torch.rand(2, 1, 3, 4, 4)
    copy = folded(model, x)
    assert isinstance(copy.one, BatchNorm2d)
    assert isinstance(copy.after, BatchNorm2d)
    torch.testing.assert_close(copy(x), model(x))
