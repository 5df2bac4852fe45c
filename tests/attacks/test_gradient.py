"""Gradient attacks against closed forms on linear models, and against foolbox on networks."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import foolbox
import pytest
import torch
from foolbox.attacks import (
    L2FastGradientAttack,
    L2ProjectedGradientDescentAttack,
    LinfFastGradientAttack,
    LinfProjectedGradientDescentAttack,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnsweep import attacks, models, registry
from snnsweep.attacks import Oracle, Threat
from snnsweep.attacks.adaptive import SAPGD
from snnsweep.attacks.apgd import APGD
from snnsweep.attacks.gradient import BIM, FGSM, MIM, PGD, RFGSM
from snnsweep.config import TrialConfig


class Linear(nn.Module):
    """Logits W x + b of the flattened image, without any bias of its own."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unfooled(weight: Tensor, x: Tensor, y: Tensor) -> Linear:
    """A bias so large that no point of the box fools it: then an attack's last point comes back."""
    bias = torch.zeros(len(weight)).index_fill(0, y[:1], float(weight.abs().sum()) + 1)
    return Linear(weight, bias)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 1))
def test_two_classes_linear_closed_form(seed: int, eps: float, label: int) -> None:
    """x + eps sign(W_other - W_y), cut with the box; PGD comes to the same corner."""
    rng = generator(seed)
    weight, x = torch.randn((2, 12), generator=rng), torch.rand((3, 1, 3, 4), generator=rng)
    y = torch.full((3,), label)
    corner = (x + eps * (weight[1 - label] - weight[label]).sign().view(1, 1, 3, 4)).clamp(0, 1)
    model = Linear(weight, torch.zeros(2).index_fill(0, y[:1], 0.1))
    # The corner moves the margin furthest: a sample that stands there stands everywhere.
    fooled = model(corner).argmax(1) != y
    for attack in (FGSM(), PGD(steps=10, rel_step=0.25, random_start=False), PGD(steps=10), BIM(), MIM(10), APGD(20)):
        outcome = attack.run(model, x, y, Threat(eps=eps), generator())
        assert torch.equal(outcome.success, fooled)
        torch.testing.assert_close(outcome.adversarial[~fooled], corner[~fooled], atol=1e-6, rtol=0)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1))
def test_l2_linear_closed_form(seed: int, eps: float) -> None:
    """The furthest point of ball and box along w is clip(x + s w) where its length is eps, or the box's corner."""
    rng = generator(seed)
    weight, x = torch.randn((2, 12), generator=rng), torch.rand((3, 1, 3, 4), generator=rng)
    along = (weight[1] - weight[0]).view(1, 1, 3, 4)
    model, y, threat = unfooled(weight, x, torch.zeros(3, dtype=torch.long)), zeros(3), Threat(eps, "l2")
    low, high = torch.zeros(3, 1, 1, 1), torch.full((3, 1, 1, 1), 1e6)
    for _ in range(100):
        middle = (low + high) / 2
        inside = ((x + middle * along).clamp(0, 1) - x).flatten(1).norm(dim=1).view(-1, 1, 1, 1) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    best = (x + low * along).clamp(0, 1)
    for attack in (PGD(30, loss="margin"), APGD(30, loss="margin"), MIM(100, loss="margin"), SAPGD(30, loss="margin")):
        adv = attack(model, x, y, threat, generator())
        gain, most = (((end - x) * along).flatten(1).sum(1) for end in (adv, best))
        assert (gain >= 0.95 * most).all()
        assert (gain <= most * (1 + 1e-4) + 1e-5).all()
    inner = 0.5 + 0 * x
    one = FGSM(loss="margin")(model, inner, y, Threat(min(eps, 0.5), "l2"), generator())
    torch.testing.assert_close(one, inner + min(eps, 0.5) * along / along.norm())


def zeros(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long)


def test_three_classes_linear_closed_form() -> None:
    """The cross-entropy's gradient: sum over k of p_k (W_k - W_y)."""
    rng = generator(1)
    weight, x, y = torch.randn((3, 12), generator=rng), torch.rand((4, 1, 3, 4), generator=rng), torch.full((4,), 2)
    model = unfooled(weight, x, y)
    model.bias.data *= 0.1  # so that the softmax does not saturate
    probability = model(x).softmax(1)
    slope = (probability @ weight - weight[y]).view_as(x)
    fooled = model(x).argmax(1) != y
    adv = FGSM()(model, x, y, Threat(eps=0.01), generator())
    torch.testing.assert_close(adv[~fooled], (x + 0.01 * slope.sign()).clamp(0, 1)[~fooled], atol=1e-6, rtol=0)
    assert not fooled.all()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_pgd_walks_by_its_step(steps: int) -> None:
    """k steps of a quarter of eps, and no further than eps."""
    weight, x, y = torch.tensor([[1.0], [-1.0]]), torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    adv = PGD(steps=steps, rel_step=0.25, random_start=False)(
        unfooled(weight, x, y), x, y, Threat(eps=0.2), generator()
    )
    assert adv.item() == pytest.approx(0.5 - min(steps * 0.05, 0.2), abs=1e-6)


@pytest.mark.parametrize("threat", [Threat(0.1), Threat(0.5, "l2")], ids=str)
def test_rfgsm_by_its_formula(threat: Threat) -> None:
    """Half of eps along random signs (or a random direction), the rest along the gradient there."""
    net, x, rng = conv_net(), 0.3 + 0.4 * torch.rand((3, 1, 8, 8), generator=generator()), generator(2)
    noise, y = threat.gaussian(x, generator(2)), net(x).argmax(1)

    def along(direction: Tensor) -> Tensor:
        length = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return direction.sign() if threat.norm == "linf" else direction / length

    middle = (x + 0.5 * threat.eps * along(noise)).requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(middle), y, reduction="sum"), middle)
    expected = (middle + 0.5 * threat.eps * along(grad)).detach()
    torch.testing.assert_close(RFGSM().propose(Oracle(net, x, y, threat), x, y, threat, rng), expected)


@pytest.mark.parametrize("threat", [Threat(0.1), Threat(0.5, "l2")], ids=str)
def test_mim_by_its_formula(threat: Threat) -> None:
    """g <- g + grad / |grad|_1, and a step of eps / 10 along it (Dong et al., equations 6 to 9)."""
    steep = conv_net()

    def net(x: Tensor) -> Tensor:  # whose gradients differ in size from step to step
        return 60 * steep(x)

    x = 0.3 + 0.4 * torch.rand((5, 1, 8, 8), generator=generator())
    y, adv, g = net(x).argmax(1), x, torch.zeros_like(x)
    for _ in range(10):
        leaf = adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y, reduction="sum"), leaf)
        g = g + grad / grad.flatten(1).abs().sum(1).view(-1, 1, 1, 1)
        step = g.sign() if threat.norm == "linf" else g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        adv = adv + threat.eps / 10 * step
    found = MIM().propose(Oracle(net, x, y, threat), x, y, threat, generator())
    torch.testing.assert_close(found, adv, atol=1e-5, rtol=0)
    assert (MIM().decay, MIM().steps, MIM().rel_step, MIM().random_start) == (1.0, 10, 0.1, False)


def test_bim_is_pgd_from_the_clean_point(trained: Any) -> None:
    model, x, y, _ = trained
    one, other = BIM(steps=3), PGD(steps=3, random_start=False)
    threat = Threat(eps=0.05)
    assert torch.equal(one(model, x, y, threat, generator()), other(model, x, y, threat, generator()))


@pytest.mark.parametrize("attack", [PGD(8), APGD(8), SAPGD(8)], ids=str)
def test_a_saturated_softmax_stops_the_cross_entropy_and_not_the_other_losses(attack: Any, trained: Any) -> None:
    """Logits times 1e4 change no answer; a robust accuracy that they raise is the attack's failure."""
    model, (x, y) = trained.model, (trained.x, trained.y)

    class Saturated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * model(x)

    right = model(x).argmax(1) == y
    x, y, threat = x[right], y[right], Threat(eps=0.05)

    def fooled(model: nn.Module, loss: str) -> float:
        return replace(attack, loss=loss).run(model, x, y, threat, generator()).success.double().mean().item()

    plain = fooled(model, "cross_entropy")
    assert fooled(Saturated(), "cross_entropy") < plain - 0.1
    for loss in ("margin", "dlr"):
        assert fooled(Saturated(), loss) == pytest.approx(fooled(model, loss), abs=0.03)
    if not isinstance(attack, APGD):
        assert fooled(Saturated(), "scaled_cross_entropy") > plain - 0.1


def test_fgsm_is_pgd_in_one_full_step(trained: Any) -> None:
    model, x, y, _ = trained
    for space in ("pixel", "encoded"):
        threat = Threat(eps=0.05, space=space)
        one = PGD(steps=1, rel_step=1.0, random_start=False)(model, x, y, threat, generator())
        assert torch.equal(FGSM()(model, x, y, threat, generator()), one)


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ELU(), nn.Conv2d(8, 8, 3, stride=2), nn.ELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 10)).eval()


def peer(ours: PGD, eps: float, norm: str) -> Any:
    if isinstance(ours, FGSM):
        return (LinfFastGradientAttack if norm == "linf" else L2FastGradientAttack)(random_start=False)
    return (LinfProjectedGradientDescentAttack if norm == "linf" else L2ProjectedGradientDescentAttack)(
        steps=ours.steps, abs_stepsize=ours.rel_step * eps, random_start=ours.random_start
    )


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=7, rel_step=0.3, random_start=False)], ids=["fgsm", "pgd"])
@pytest.mark.parametrize(("kind", "norm"), [("conv", "linf"), ("snn", "linf"), ("inner", "l2")])
def test_as_foolbox_does(attack: PGD, kind: str, norm: str, trained: Any) -> None:
    """Where no earlier point fools (foolbox returns its last one), the adversarials agree; verdicts are no weaker."""
    x, y, eps = trained.x, trained.y, 0.05 if norm == "linf" else 0.03
    if kind == "inner":  # off the sides of the box, whose corners foolbox's l2 projection only cuts
        x = 0.5 + (x - 0.5) / 10
    model = trained.model if kind == "snn" else conv_net()
    y = y if kind == "snn" else model(x).argmax(1)
    seen_by_foolbox = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs, _, success = peer(attack, eps, norm)(seen_by_foolbox, x, y, epsilons=eps)
    found = attack.run(model, x, y, Threat(eps, norm), generator())
    standing = ~found.success
    assert 0 < standing.sum() < len(y)
    if kind != "snn":
        torch.testing.assert_close(found.adversarial[standing], theirs[standing], atol=1e-6, rtol=0)
    else:  # a rounding error in a gradient next to 0 turns its sign: a few samples may part ways
        apart = (found.adversarial - theirs)[standing].abs().flatten(1).amax(1) > 1e-6
        assert apart.double().mean() < 0.02
    assert (success & standing).sum() <= (1 if kind == "snn" else 0)
    if isinstance(attack, FGSM):
        assert (found.success & ~success).sum() <= (model(x).argmax(1) != y).sum()  # ours keeps a clean error as it is


@pytest.fixture(scope="module")
def encoders() -> dict[str, Any]:
    """An untrained SNN for each encoder without randomness."""
    torch.manual_seed(0)
    flat = {"model.depth": 10, "model.width": 0.05, "encoder.time_steps": 3}
    names = [name for name in ("direct", "phase", "latency") if name in registry.encoders.names()]
    return {name: models.build(TrialConfig.from_flat({**flat, "encoder.name": name})).eval() for name in names}


@settings(max_examples=25, deadline=None)
@given(
    eps=st.floats(0, 1),
    space=st.sampled_from(["pixel", "encoded"]),
    encoder=st.sampled_from(["direct", "phase", "latency"]),
    attack=st.sampled_from([FGSM(), PGD(steps=3, rel_step=0.7), PGD(steps=2, rel_step=5.0, random_start=False)]),
    seed=st.integers(0, 100),
)
def test_in_the_ball_and_in_the_box(
    encoders: dict[str, Any], eps: float, space: str, encoder: str, attack: PGD, seed: int
) -> None:
    model, rng = encoders[encoder], generator(seed)
    x = torch.rand((3, 1, 8, 8), generator=rng).round(decimals=1)  # with zeros and ones
    adv = attack(model, x, torch.tensor([0, 1, 2]), Threat(eps=eps, space=space), rng)
    start = x if space == "pixel" else model.encode(x)
    assert adv.shape == start.shape
    assert (adv - start).abs().max() <= eps + 1e-6
    assert adv.min() >= 0
    assert adv.max() <= 1


@pytest.mark.parametrize("space", ["pixel", "encoded"])
@pytest.mark.parametrize("name", attacks.names())
def test_eps_0_is_the_identity(name: str, space: str, trained: Any) -> None:
    model, x, y, _ = trained
    outcome = attacks.get(name)().run(model, x, y, Threat(eps=0, space=space), generator())
    assert torch.equal(outcome.adversarial, x if space == "pixel" else model.encode(x))
    assert torch.equal(outcome.success, model(x).argmax(1) != y)


def test_an_encoded_threat_perturbs_the_code(trained: Any) -> None:
    """The attack enters behind the encoder: [T, N, C, H, W], its steps no longer alike."""
    model, x, y, config = trained
    calls = []
    encode = model.encode
    model.encode = lambda images: calls.append(1) or encode(images)
    try:
        outcome = PGD(steps=3).run(model, x, y, Threat(eps=0.05, space="encoded"), generator())
    finally:
        del model.encode
    assert len(calls) == 1
    assert outcome.adversarial.shape == (config.encoder.time_steps, *x.shape)
    assert not torch.equal(outcome.adversarial[0], outcome.adversarial[1])
    assert torch.equal(outcome.success, model.forward_encoded(outcome.adversarial).argmax(1) != y)


def test_verdicts_do_not_depend_on_the_batches(trained: Any) -> None:
    """But for one sample: a convolution may round by its batch size."""
    model, (x, y) = trained.model, (trained.x[:48], trained.y[:48])
    attack, threat = PGD(steps=3, random_start=False), Threat(eps=0.05)
    whole = attack.run(model, x, y, threat, generator()).success
    for size in (1, 7):
        parts = zip(x.split(size), y.split(size), strict=True)
        split = torch.cat([attack.run(model, a, b, threat, generator()).success for a, b in parts])
        assert (split != whole).sum() <= 1
    order = torch.randperm(len(x), generator=generator())
    assert (attack.run(model, x[order], y[order], threat, generator()).success != whole[order]).sum() <= 1


def test_same_stream_same_adversarials(trained: Any) -> None:
    model, x, y, _ = trained
    adv = [PGD(steps=2)(model, x, y, Threat(eps=0.05), generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(adv[0], adv[1])
    assert not torch.equal(adv[0], adv[2])


def test_a_larger_ball_is_no_harder(trained: Any) -> None:
    """Robust accuracy falls with eps; 2 % of slack, since no attack finds the true worst case."""
    model, x, y, _ = trained
    radii = (0, 0.02, 0.05, 0.1, 0.2, 0.4)
    fooled = [PGD(steps=5).run(model, x, y, Threat(eps=eps), generator()).success for eps in radii]
    standing = [1 - success.double().mean().item() for success in fooled]
    assert all(larger <= smaller + 0.02 for smaller, larger in pairwise(standing))
    assert standing[0] > 0.5
    assert standing[-1] < 0.05


def test_more_steps_are_no_weaker(trained: Any) -> None:
    """Every point on the way counts, so that the first k steps' victims are among those of more steps."""
    model, x, y, _ = trained
    few, many = (
        PGD(steps=k, random_start=False).run(model, x, y, Threat(eps=0.05), generator()).success for k in (2, 8)
    )
    assert (few <= many).all()
    assert few.sum() < many.sum()


def test_the_papers_step(trained: Any) -> None:
    """`trail`: step 0.01 at eps 6/255."""
    fgsm, pgd = registry.suites.get("trail")().steps
    assert math.isclose(pgd.attack.rel_step * 6 / 255, 0.01)
    assert (pgd.attack.steps, pgd.attack.random_start, fgsm.attack) == (7, True, FGSM())
