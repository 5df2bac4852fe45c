"""Objectives against their papers' formulas, written out on a small smooth network whose passes are done by hand."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnsweep import data, models, registry
from snnsweep.config import EncoderConfig, ImageSpec, TrialConfig
from snnsweep.models import SNN
from snnsweep.training import inner, penalties
from snnsweep.training.inner import Inputs
from snnsweep.training.loop import Trainer

T, N, CLASSES = 3, 5, 4
SPEC = ImageSpec(1, 3, 3, CLASSES, mean=(0.4,), std=(0.25,))
OBJECTIVES = registry.trainers.names()
ATTACKED = ("adversarial", "adversarial+sparse_gradient", "rat", "trades")
SPARSE = ("sparse_gradient", "adversarial+sparse_gradient")
ORTHOGONAL = ("orthogonal", "rat")


class Net(nn.Module):
    """Linear, a gain for each time step, batch norm over time and samples, tanh, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES)

    def forward(self, z: Tensor) -> Tensor:
        gain = torch.arange(1.0, T + 1).view(-1, 1, 1)
        current = gain * self.first(z.flatten(2))
        return self.last(self.norm(current.flatten(0, 1)).tanh()).unflatten(0, (T, -1))


class Linear(nn.Module):
    """Logits linear in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, CLASSES)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z.flatten(2))


def snn(network: nn.Module, encoder: str = "direct") -> SNN:
    return SNN(registry.encoders.get(encoder)(EncoderConfig(name=encoder, time_steps=T)), network, SPEC)


def small() -> tuple[SNN, Tensor, Tensor]:
    """A network whose statistics have seen something, and a batch with pixels at both ends of the box."""
    torch.manual_seed(3)
    model = snn(Net())
    with torch.no_grad():
        for _ in range(9):
            model(torch.rand(16, 1, 3, 3))
        model.network.last.weight.mul_(4)
    x = torch.rand(N, 1, 3, 3)
    x[0, 0, 0], x[1, 0, 0] = 0, 1
    return model, x, torch.arange(N) % CLASSES


def config(objective: str, **own: object) -> TrialConfig:
    flat = {key.replace("__", "."): value for key, value in own.items()}
    return TrialConfig.from_flat({"train.objective": objective, "encoder.time_steps": T, **flat})


def loss_of(settings: TrialConfig, model: SNN, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return registry.trainers.get(settings.train.objective)(model, x, y, settings, rng)


@dataclass
class Paper:
    """The objectives as their papers write them, over `Net` by hand, in float64."""

    model: SNN
    config: TrialConfig
    rng: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def logits(self, z: Tensor, training: bool) -> Tensor:
        net: Any = self.model.network
        (w1, b1, gamma, beta, w2, b2) = (p.double() for p in net.parameters())
        code = z.expand(T, *z.shape) if z.dim() == 4 else z
        gain = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(T, 1, 1)
        current = gain * ((code.flatten(2) - 0.4) / 0.25 @ w1.T + b1)
        mean, var = net.norm.running_mean.double(), net.norm.running_var.double()
        if training:
            mean, var = current.mean((0, 1)), current.var((0, 1), unbiased=False)
        return ((current - mean) / (var + 1e-5).sqrt() * gamma + beta).tanh() @ w2.T + b2

    def loss(self, steps: Tensor, y: Tensor) -> Tensor:
        if self.config.train.loss == "cross_entropy":
            return self.cross_entropy(steps.mean(0), y)
        lam = self.config.train.tet_lambda
        each = torch.stack([self.cross_entropy(step, y) for step in steps]).mean()
        return (1 - lam) * each + lam * ((steps - self.config.neuron.v_threshold) ** 2).mean()

    @staticmethod
    def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
        return -logits.exp().div(logits.exp().sum(1, keepdim=True)).log()[range(N), y].mean()

    @staticmethod
    def divergence(clean: Tensor, other: Tensor) -> Tensor:
        p, q = clean.softmax(1), other.softmax(1)
        return (p * (p / q).log()).sum(1).mean()

    def attack(self, z: Tensor, start: Tensor, step: float, target: Callable[[Tensor], Tensor]) -> Tensor:
        eps = self.config.train.eps
        adv = start
        for _ in range(self.config.train.attack_steps):
            adv = adv.detach().requires_grad_()
            (grad,) = torch.autograd.grad(target(self.logits(adv, training=False).mean(0)), adv)
            adv = (z + (adv + step * grad.sign() - z).clamp(-eps, eps)).clamp(0, 1)
        return adv.detach()

    def adversarial(self, z: Tensor, y: Tensor) -> Tensor:
        eps, step = self.config.train.eps, self.config.train.eps * self.config.train.attack_rel_step
        if self.config.train.attack_steps == 1:
            return self.attack(z, z, eps, lambda logits: self.cross_entropy(logits, y))
        of_sample = z.shape[1:] if z.dim() == 4 else (T, *z.shape[2:])
        drawn = [torch.rand(of_sample, generator=self.rng).double() for _ in y]  # sample by sample
        uniform = torch.stack(drawn, z.dim() - 4) * 2 - 1
        return self.attack(z, (z + eps * uniform).clamp(0, 1), step, lambda logits: self.cross_entropy(logits, y))

    def trades(self, z: Tensor, y: Tensor) -> Tensor:
        start = (z + 0.001 * torch.randn(z.shape, generator=self.rng).double()).clamp(0, 1)
        clean = self.logits(z, training=False).mean(0).detach()
        step = self.config.train.eps * self.config.train.attack_rel_step
        adv = self.attack(z, start, step, lambda logits: self.divergence(clean, logits))
        steps = self.logits(z, training=True)
        other = self.logits(adv, training=True).mean(0)
        return self.loss(steps, y) + self.config.train.beta * self.divergence(steps.mean(0), other)

    def sparse_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        z, h = z.clone().requires_grad_(), self.config.train.sr_step
        steps = self.logits(z, training=True)
        rivals = [max((float(v), j) for j, v in enumerate(row) if j != label)[1] for row, label in self._rows(steps, y)]

        def f(logits: Tensor) -> Tensor:
            own, other = logits[range(N), y].exp(), logits[range(N), rivals].exp()
            return own / (own + other)

        (grad,) = torch.autograd.grad(f(steps.mean(0)).sum(), z, retain_graph=True)
        there = self.logits((z + h * grad.sign()).clamp(0, 1).detach(), training=True)
        penalty = (((f(there.mean(0)) - f(steps.mean(0))) / h) ** 2).mean()
        return self.loss(steps, y) + self.config.train.sr_weight * penalty

    @staticmethod
    def _rows(steps: Tensor, y: Tensor) -> list[tuple[Tensor, int]]:
        return list(zip(steps.mean(0).detach(), y.tolist(), strict=True))

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        z = x.double()
        if self.config.threat.space == "encoded":
            z = z.expand(T, *z.shape)
        name = self.config.train.objective
        if name == "trades":
            return self.trades(z, y)
        if name in ATTACKED:
            z = self.adversarial(z, y)
        return self.sparse_gradient(z, y) if name in SPARSE else self.loss(self.logits(z, training=True), y)


@pytest.mark.parametrize("space", ["pixel", "encoded"])
@pytest.mark.parametrize("loss", registry.losses.names())
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_value_and_gradient_are_the_papers(objective: str, loss: str, space: str) -> None:
    own = {"train__loss": loss, "threat__space": space, "train__tet_lambda": 0.3, "train__sr_weight": 0.7}
    for steps in (1, 4) if objective in ATTACKED else (1,):
        set_up = config(objective, train__eps=0.1, train__attack_steps=steps, train__attack_rel_step=0.4, **own)
        model, x, y = small()
        expected = Paper(model, set_up)(x, y)
        wanted = torch.autograd.grad(expected, list(model.parameters()))
        found = loss_of(set_up, model, x, y)
        grads = torch.autograd.grad(found, list(model.parameters()))
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
        for grad, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, want, rtol=2e-3, atol=2e-4)


def test_an_attack_makes_the_loss_larger() -> None:
    """The papers' objectives differ on this network, so that the comparison above tells them apart."""
    model, x, y = small()
    own = {"train__eps": 0.1, "train__sr_weight": 0.7}
    values = {name: float(loss_of(config(name, **own), model, x, y).detach()) for name in OBJECTIVES}
    assert values["adversarial"] > values["natural"] + 0.1
    assert values["trades"] > values["natural"] + 0.1
    assert values["sparse_gradient"] > values["natural"] + 0.1
    assert values["adversarial+sparse_gradient"] > values["adversarial"] + 0.1
    assert values["orthogonal"] == values["natural"]


PASSES = {"natural": (1, 0), "adversarial": (1, 3), "trades": (2, 4), "sparse_gradient": (2, 0)} | {
    "adversarial+sparse_gradient": (2, 3),
    "orthogonal": (1, 0),
    "rat": (1, 3),
}


@pytest.mark.parametrize("space", ["pixel", "encoded"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_training_passes_move_the_model(objective: str, space: str) -> None:
    """Their number is the paper's, and the buffers are as these passes alone leave them; inputs get no gradient."""
    model, x, y = small()
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    fresh = deepcopy(model.network)
    model.network.register_forward_pre_hook(lambda module, inputs: seen[module.training].append(inputs[0].detach()))
    before = x.clone()
    loss_of(config(objective, threat__space=space, train__attack_steps=3), model, x, y).backward()
    assert (len(seen[True]), len(seen[False])) == PASSES[objective]
    for z in seen[True]:
        fresh(z)
    found, expected = dict(model.network.named_buffers()), dict(fresh.named_buffers())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert x.grad is None
    assert torch.equal(x, before)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.network.norm.training


@given(st.floats(0, 1), st.integers(1, 3), st.floats(0.1, 3), st.sampled_from(["pixel", "encoded"]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_inner_attack_stays_in_ball_and_box(eps: float, steps: int, rel: float, space: str, kl: bool) -> None:
    model, x, y = small()
    own = {"train__eps": eps, "train__attack_steps": steps, "train__attack_rel_step": rel, "threat__space": space}
    set_up = config("trades" if kl else "adversarial", **own)
    inputs = Inputs.of(model, x, set_up)
    find = inner.divergent if kl else inner.adversarial
    adv, again = (find(model, inputs, y, set_up, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(adv, again)
    assert not adv.requires_grad
    assert (adv - inputs.clean).abs().max() <= eps + 1e-6
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert all(p.grad is None for p in model.parameters())


def test_one_step_is_the_whole_of_eps_and_the_way_the_steps_go_is_uphill() -> None:
    model, x, y = small()
    set_up = config("adversarial", train__attack_steps=1, train__attack_rel_step=0.01, train__eps=0.05)
    inputs = Inputs.of(model, x, set_up)
    adv = inner.adversarial(model, inputs, y, set_up, torch.Generator())
    free = (x >= 0.05) & (x <= 0.95)
    torch.testing.assert_close((adv - x).abs()[free], torch.full_like(x, 0.05)[free])


class Recorder(nn.Module):
    """Remembers what dtype comes out of the first layer."""

    def __init__(self, model: SNN):
        super().__init__()
        self.seen: set[torch.dtype] = set()
        model.network.first.register_forward_hook(lambda _m, _i, output: self.seen.add(output.dtype))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bf16(objective: str) -> None:
    """Losses are fp32; layers of a regularised pass too, for a difference over h is below bf16's resolution."""
    set_up = config(objective, train__eps=0.1, train__sr_weight=0.05)
    model, x, y = small()
    recorder = Recorder(model)
    exact = loss_of(set_up, model, x, y)
    recorder.seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss_of(set_up, model, x, y)
        attack = inner.divergent if objective == "trades" else inner.adversarial
        adv = attack(model, Inputs.of(model, x, set_up), y, set_up, torch.Generator().manual_seed(0))
    assert rough.dtype == adv.dtype == torch.float32
    assert torch.bfloat16 in recorder.seen
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    if objective == "sparse_gradient":
        assert torch.equal(rough, exact)
    model.eval()
    with torch.no_grad():
        at = {name: nn.functional.cross_entropy(model(z), y) for name, z in (("clean", x), ("attacked", adv))}
    assert at["attacked"] > at["clean"] + 0.1


@pytest.mark.parametrize("space", ["pixel", "encoded"])
def test_logits_are_fp32_where_layers_are_bf16(space: str) -> None:
    model, x, _ = small()
    inputs = Inputs.of(model, x, config("natural", threat__space=space))
    exact = inputs.steps(inputs.clean)
    with torch.autocast("cpu", torch.bfloat16):
        rough = inputs.steps(inputs.clean)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


def penalty(model: SNN, x: Tensor, y: Tensor, h: float) -> float:
    with_it, without = (config("sparse_gradient", train__sr_weight=w, train__sr_step=h) for w in (1.0, 0.0))
    return float((loss_of(with_it, model, x, y) - loss_of(without, model, x, y)).detach())


@given(st.integers(0, 2**20))
@settings(max_examples=20, deadline=None)
def test_sparse_gradient_is_the_squared_l1_norm(seed: int) -> None:
    """Of f = sigmoid(w x + b): (f (1 - f) |w|_1)^2, where w is the difference of two classes' weights."""
    torch.manual_seed(seed)
    model = snn(Linear())
    x, y = 0.3 + 0.4 * torch.rand(N, 1, 3, 3), torch.arange(N) % CLASSES
    with torch.no_grad():
        logits = model(x)
    expected = []
    for row, label in zip(logits, y.tolist(), strict=True):
        other = max((float(logit), j) for j, logit in enumerate(row) if j != label)[1]
        w = (model.network.layer.weight[label] - model.network.layer.weight[other]).detach() / 0.25
        f = float(torch.sigmoid(row[label] - row[other]))
        expected.append((f * (1 - f) * float(w.abs().sum())) ** 2)
    assert penalty(model, x, y, h=1e-3) == pytest.approx(sum(expected) / N, rel=0.02)


def test_sparse_gradient_asks_only_for_images() -> None:
    """Where the slope leads out of [0, 1] there is nothing to gain, for an attacker neither."""
    torch.manual_seed(0)
    model = snn(Linear())
    y, corner = torch.zeros(1, dtype=torch.long), torch.ones(1, 1, 3, 3)
    with torch.no_grad():
        model.network.layer.weight.copy_(torch.tensor([[0.05], [0.0], [0.0], [0.0]]).expand(CLASSES, 9))
    assert penalty(model, corner, y, h=0.01) == 0  # brighter would be better
    assert penalty(model, corner * 0.5, y, h=0.01) > 1e-3


def test_sparse_gradient_draws_the_same_noise_twice() -> None:
    """A step of 1e-6 turns no spike of a Poisson code; fresh draws would, and the quotient would explode."""
    torch.manual_seed(0)
    model = snn(Linear(), "poisson")
    x, y = torch.rand(N, 1, 3, 3), torch.arange(N) % CLASSES
    torch.manual_seed(1)
    with_it = loss_of(config("sparse_gradient", train__sr_weight=1, train__sr_step=1e-6), model, x, y)
    after = torch.rand(1)
    torch.manual_seed(1)
    without = loss_of(config("natural"), model, x, y)
    assert float(with_it.detach()) == pytest.approx(float(without.detach()))
    assert torch.equal(after, torch.rand(1))


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 0.05), st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_retraction_maps_the_singular_values(rows: int, columns: int, b: float, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(columns, rows)
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    u, s, v = torch.linalg.svd(before.double(), full_matrices=False)
    penalties.retract(nn.Sequential(layer), config("rat", train__rat_weight=b))  # type: ignore[arg-type]
    expected = u @ ((1 + b - b * s**2) * s).diag() @ v
    torch.testing.assert_close(layer.weight.detach().double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(layer.bias, bias)


def test_retraction_makes_rows_orthonormal() -> None:
    """Of a convolution's rows, an output channel each, and of the columns where there are more rows than columns."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 6))
    wide, norm, tall = model
    scale = norm.weight.detach().clone()
    for _ in range(300):
        penalties.retract(model, config("rat", train__rat_weight=0.1))  # type: ignore[arg-type]
    rows = wide.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(tall.weight.detach().T @ tall.weight.detach(), torch.eye(4), rtol=0, atol=1e-4)
    assert torch.equal(norm.weight, scale)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_follows_a_step(objective: str) -> None:
    """One SGD step by hand, then the retraction W <- (1 + b) W - b W W^T W where the paper has it."""
    own = {"train__optimizer": "sgd", "train__lr": 0.1, "train__momentum": 0.0, "train__rat_weight": 0.05}
    set_up = config(objective, train__schedule="constant", **own)
    model, x, y = small()
    loss = loss_of(set_up, deepcopy(model), x, y, seed=set_up.seed)
    trainer = Trainer(model, set_up, data.load(set_up, "cpu").train)
    twin = deepcopy(model)
    grads = torch.autograd.grad(loss_of(set_up, twin, x, y, seed=set_up.seed), list(twin.parameters()))
    assert trainer.step(x, y) == loss.detach()
    for (name, found), old, grad in zip(model.named_parameters(), twin.parameters(), grads, strict=True):
        expected = old.detach() - 0.1 * grad
        if objective in ORTHOGONAL and name.endswith(("first.weight", "last.weight")):
            expected = 1.05 * expected - 0.05 * expected @ expected.T @ expected
        torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize(("objective", "loss"), list(product(OBJECTIVES, registry.losses.names())))
def test_training_lowers_its_own_loss_on_real_images(objective: str, loss: str) -> None:
    """Of a fixed batch and fixed draws, by a seventh within eight steps."""
    own = {"data__name": "cifar10_fixture", "data__subset": 32, "data__batch_size": 32}
    own |= {"model__depth": 10, "model__width": 0.1, "model__stem": "imagenet"}
    own |= {"neuron__v_threshold": 0.5, "encoder__time_steps": 2}
    own |= {"train__loss": loss, "train__lr": 5e-2, "train__schedule": "constant"}
    if objective in ATTACKED:
        own |= {"train__attack_steps": 2, "train__eps": "2/255"}
    set_up = config(objective, **own)
    torch.manual_seed(0)
    trainer = Trainer(models.build(set_up), set_up, data.load(set_up, "cpu").train)
    x, y = trainer.split.images(), trainer.split.y
    before = float(loss_of(set_up, deepcopy(trainer.model), x, y).detach())
    for _ in range(8):
        trainer.epoch()
    assert float(loss_of(set_up, trainer.model.train(), x, y).detach()) < 6 / 7 * before


@pytest.mark.parametrize(
    ("objective", "paper"),
    [
        ("adversarial", {"eps": 8 / 255, "attack_steps": 7, "step": 2 / 255}),
        ("trades", {"eps": 0.031, "attack_steps": 10, "step": 0.007, "beta": 6}),
        ("sparse_gradient", {"sr_step": 0.01}),
        ("adversarial+sparse_gradient", {"eps": 8 / 255, "attack_steps": 7, "step": 2.55 / 255, "sr_step": 0.01}),
        ("rat", {"eps": 2 / 255, "attack_steps": 1, "rat_weight": 0.004}),
        ("orthogonal", {"rat_weight": 0.004}),
    ],
)
def test_an_objective_brings_its_papers_values(objective: str, paper: dict[str, float]) -> None:
    train = config(objective).train
    values = train.model_dump() | {"step": train.eps * train.attack_rel_step}
    assert {key: values[key] for key in paper} == pytest.approx(paper)
    assert config(objective, train__eps="1/255", train__beta=1).train.model_dump() == train.model_dump() | {
        "eps": 1 / 255,
        "beta": 1,
    }
