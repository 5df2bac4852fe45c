"""Balls, cut with the box: the nearest point, steps and random points, against brute force and known distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snnsweep.attacks import Threat
from snnsweep.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nearest(adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point of ball and box by bisection of the multiplier; one sample, any shape."""
    low, high = 0.0, 1.0
    if ((adv.clamp(0, 1) - x).norm()) <= eps:
        return adv.clamp(0, 1)
    for _ in range(200):
        middle = (low + high) / 2
        inside = ((x + middle * (adv - x)).clamp(0, 1) - x).norm() <= eps
        low, high = (middle, high) if inside else (low, middle)
    return (x + low * (adv - x)).clamp(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), eps=st.floats(0, 3), reach=st.floats(0, 5), space=st.sampled_from(["pixel", "encoded"])
)
def test_l2_projection_is_the_nearest_legal_point(seed: int, eps: float, reach: float, space: str) -> None:
    threat, rng = Threat(eps, "l2", space), generator(seed)
    x = torch.rand((3, 2, 2, 2, 3), generator=rng, dtype=torch.float64).round(decimals=1)  # with zeros and ones
    adv = x + reach * torch.randn(x.shape, generator=rng, dtype=torch.float64).round(decimals=1)  # some do not move
    projected = threat.project(adv, x)
    for i in range(x.shape[threat.sample_dim]):
        one = [tensor.select(threat.sample_dim, i) for tensor in (projected, adv, x)]
        torch.testing.assert_close(one[0], nearest(one[1], one[2], eps), atol=1e-7, rtol=0)
    assert threat.allows(projected, x).all()
    torch.testing.assert_close(threat.project(projected, x), projected, atol=1e-12, rtol=0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.floats(0, 3))
def test_no_legal_point_is_nearer(seed: int, eps: float) -> None:
    threat, rng = Threat(eps, "l2"), generator(seed)
    x = torch.rand((1, 1, 2, 3), generator=rng).expand(200, 1, 2, 3)
    adv = (x + torch.randn((1, 1, 2, 3), generator=rng)).contiguous()
    best = (threat.project(adv, x) - adv).flatten(1).norm(dim=1)
    other = (threat.random_start(x, rng) - adv).flatten(1).norm(dim=1)
    assert (best <= other + 1e-5).all()


@given(eps=st.floats(1e-3, 2), norm=st.sampled_from(["linf", "l2"]), space=st.sampled_from(["pixel", "encoded"]))
def test_a_point_in_reach_stays(eps: float, norm: str, space: str) -> None:
    threat = Threat(eps, norm, space)
    x = torch.full((2, 3, 1, 2, 2), 0.5)
    near = x + min(eps / 10, 0.1)
    torch.testing.assert_close(threat.project(near, x), near, atol=1e-7, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    eps=st.floats(0, 2),
    norm=st.sampled_from(["linf", "l2"]),
    space=st.sampled_from(["pixel", "encoded"]),
    seed=st.integers(0, 99),
)
def test_random_points_are_legal_and_repeat(eps: float, norm: str, space: str, seed: int) -> None:
    threat = Threat(eps, norm, space)
    x = torch.rand((2, 3, 1, 4, 4), generator=generator(seed)).round(decimals=1)
    for draw in (threat.random_start, threat.random_edge, threat.stretched_start):
        point = draw(x, generator(seed))
        assert torch.equal(point, draw(x, generator(seed)))
        assert threat.allows(point, x).all()


def test_l2_start_is_uniform_in_the_ball() -> None:
    """(r / eps)^n is uniform on [0, 1]; directions have mean 0."""
    x = torch.full((20_000, 1, 1, 3), 0.5)
    change = (Threat(0.25, "l2").random_start(x, generator()) - x).flatten(1)
    share = (change.norm(dim=1) / 0.25) ** 3
    assert share.max() <= 1 + 1e-5
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.01)
    assert change.mean(0).abs().max() < 0.005


def test_edges_are_the_corners_and_the_sphere() -> None:
    x = torch.full((5000, 1, 1, 3), 0.5)
    corners = (Threat(0.25).random_edge(x, generator()) - x).flatten(1)
    assert torch.equal(corners.abs(), torch.full_like(corners, 0.25))
    assert corners.mean(0).abs().max() < 0.02
    assert len(corners.unique(dim=0)) == 8
    sphere = (Threat(0.25, "l2").random_edge(x, generator()) - x).flatten(1)
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((5000,), 0.25))


def test_a_stretched_start_has_its_furthest_element_at_eps() -> None:
    x = torch.full((50, 2, 3, 3), 0.5)
    change = (Threat(0.25).stretched_start(x, generator(4)) - x).flatten(1)
    torch.testing.assert_close(change.abs().amax(1), torch.full((50,), 0.25))
    ratio = change / (2 * torch.rand(x.shape, generator=generator(4)) - 1).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=0)
    length = (Threat(0.25, "l2").stretched_start(x, generator(4)) - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(length, torch.full((50,), 0.25))


@pytest.mark.parametrize("space", ["pixel", "encoded"])
def test_l2_allows_by_each_samples_whole_length(space: str) -> None:
    threat = Threat(0.5, "l2", space)
    x = torch.full((4, 4, 1, 2, 2), 0.5)
    adv = x.clone()
    samples = adv.movedim(threat.sample_dim, 0)
    samples[1] += 0.5 / 16**0.5  # of length 0.5 over 16 elements
    samples[2] += 0.51 / 16**0.5
    samples[3][0, 0, 0, 0] = math.nan
    assert threat.allows(adv, x).tolist() == [True, True, False, False]
    assert Threat(2.0, "l2").allows(torch.tensor([[[[1.01]]], [[[-0.01]]]]), torch.ones(2, 1, 1, 1)).tolist() == [
        False,
        False,
    ]


@pytest.mark.parametrize("space", ["pixel", "encoded"])
def test_step_goes_furthest_for_its_length(space: str) -> None:
    """sup of <g, d> over |d| <= size is size |g|_1 in linf and size |g|_2 in l2, sample by sample."""
    grad = torch.randn((3, 3, 1, 2, 2), generator=generator())
    grad.movedim(Threat(1, space=space).sample_dim, 0)[1] = 0
    size = torch.tensor([0.1, 0.2, 0.3])
    for norm, order in (("linf", 1), ("l2", 2)):
        threat = Threat(1, norm, space)
        step = threat.step(grad, size)
        gain = (threat.rows(step) * threat.rows(grad)).sum(1)
        torch.testing.assert_close(gain, size * threat.rows(grad).norm(order, dim=1))
        assert not threat.rows(step)[1].any()
        torch.testing.assert_close(threat.step(grad, 0.2), threat.step(grad, torch.full((3,), 0.2)))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e30])
def test_step_of_a_tiny_or_huge_gradient(scale: float) -> None:
    direction = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    step = Threat(1, "l2").step(direction * scale, 2.0)
    torch.testing.assert_close(step.flatten(), torch.tensor([1.2, -1.6]), atol=0.1 if scale < 1e-40 else 1e-6, rtol=0)
    mean = Threat(1).mean_scaled(direction * scale)
    torch.testing.assert_close(mean.abs().mean(), torch.tensor(1.0))


def test_samples_by_index() -> None:
    for space in ("pixel", "encoded"):
        threat = Threat(1, space=space)
        x = torch.arange(24.0).view(2, 3, 1, 2, 2)
        samples = torch.tensor([1, 0])
        expected = x[samples] if space == "pixel" else x[:, samples]
        assert torch.equal(threat.take(x, samples), expected)
        mask = torch.arange(x.shape[threat.sample_dim]) == 1
        picked = threat.pick(mask, x, -x).movedim(threat.sample_dim, 0)
        assert torch.equal(picked[1], x.movedim(threat.sample_dim, 0)[1])
        assert torch.equal(picked[0], -x.movedim(threat.sample_dim, 0)[0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("space", ["pixel", "encoded"])
def test_draws_do_not_depend_on_how_many_samples_are_drawn_at_a_time(norm: str, space: str) -> None:
    threat = Threat(0.3, norm, space)
    shape = (7, 1, 3, 5) if space == "pixel" else (2, 7, 1, 3, 5)
    x = torch.rand(shape, generator=generator(1))
    for draw in (threat.random_start, threat.stretched_start, threat.random_edge, threat.gaussian):
        rng = generator(2)
        parts = [draw(part, rng) for part in x.split(3, threat.sample_dim)]
        assert torch.equal(torch.cat(parts, threat.sample_dim), draw(x, generator(2)))


def test_gaussian_draws_on_the_generators_device_and_in_xs_type() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64)
    noise = Threat(0.1).gaussian(x, generator(3))
    assert noise.dtype == torch.float64
    rng = generator(3)
    assert torch.equal(noise, torch.stack([torch.randn(3, generator=rng) for _ in range(2)]).double())


def test_another_norm_is_told_of() -> None:
    with pytest.raises(UserError, match=r"unknown norm 'linff'; did you mean linf\?; set threat.norm"):
        Threat(0.1, "linff")
