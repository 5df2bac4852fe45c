"""The judge: what counts as a success, and that a model comes out of an attack as it went in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snnsweep.attacks import Attack, Oracle, Threat
from snnsweep.attacks.base import attacked
from snnsweep.attacks.gradient import FGSM, PGD
from snnsweep.attacks.query import Noise

ATTACKS = [FGSM(), PGD(steps=3), Noise(draws=3)]


class Pointwise(nn.Module):
    """Two classes; the second one's lead is a function of the single pixel."""

    def __init__(self, lead: Callable[[Tensor], Tensor], random: bool = False):
        super().__init__()
        self.lead, self.random, self.calls = lead, random, 0
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        lead = self.scale * self.lead(x.flatten(1)[:, 0])
        return torch.stack([torch.zeros_like(lead), lead], 1)


def pixel(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def zeros(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long)


@dataclass(frozen=True)
class Path(Attack):
    """Asks about some points, then proposes one."""

    asked: tuple[float, ...]
    proposed: float

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        for point in self.asked:
            oracle.logits(torch.full_like(x, point))
        return torch.full_like(x, self.proposed)


values = st.floats(-2, 3, width=32)


@given(st.lists(st.tuples(values, st.floats(0, 1, width=32)), min_size=1, max_size=8), st.floats(0, 1))
def test_projection_is_the_nearest_legal_point(pairs: list[tuple[float, float]], eps: float) -> None:
    threat = Threat(eps=eps)
    adv, x = (pixel(*column) for column in zip(*pairs, strict=True))
    projected = threat.project(adv, x)
    nearest = [min(max(a, p - eps, 0.0), p + eps, 1.0) for a, p in pairs]  # an interval: clamp into it
    assert projected.flatten().tolist() == pytest.approx(nearest, abs=1e-6)
    assert threat.allows(projected, x).all()
    assert torch.equal(threat.project(projected, x), projected)


@given(st.floats(0, 1), st.sampled_from(["pixel", "encoded"]), st.integers(0, 99))
def test_random_start_is_legal_and_repeats(eps: float, space: str, seed: int) -> None:
    threat = Threat(eps=eps, space=space)
    x = torch.rand((2, 3, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    first, again = (threat.random_start(x, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(first, again)
    assert threat.allows(first, x).all()


def test_random_start_fills_the_ball() -> None:
    start = Threat(eps=0.25).random_start(torch.full((1, 1, 200, 200), 0.5), torch.Generator().manual_seed(0))
    assert start.min() < 0.251
    assert start.max() > 0.749
    assert start.mean().item() == pytest.approx(0.5, abs=0.005)
    assert start.std().item() == pytest.approx(0.5 / math.sqrt(12), abs=0.005)


@pytest.mark.parametrize("space", ["pixel", "encoded"])
@pytest.mark.parametrize(("value", "legal"), [(0.6, True), (0.61, False), (0.4, True), (math.nan, False)])
def test_allows_judges_each_sample_alone(space: str, value: float, legal: bool) -> None:
    threat = Threat(eps=0.1, space=space)
    shape = (4, 1, 2, 2) if space == "pixel" else (3, 4, 1, 2, 2)
    x = torch.full(shape, 0.5)
    adv = x.clone()
    adv.movedim(threat.sample_dim, 0)[2][..., -1, -1] = value
    assert threat.allows(adv, x).tolist() == [True, True, legal, True]


def test_allows_nothing_outside_the_box() -> None:
    x = pixel(0.05, 0.95, 0.5)
    assert Threat(eps=0.1).allows(pixel(-0.01, 1.01, 0.5), x).tolist() == [False, False, True]


def test_a_point_that_fooled_on_the_way_is_kept(rng: torch.Generator) -> None:
    model = Pointwise(lambda p: 0.05 - (p - 0.55).abs())  # fooled in (0.5, 0.6) alone
    x, threat = pixel(0.4, 0.4), Threat(eps=0.3)
    outcome = Path(asked=(0.58, 0.52), proposed=0.7).run(model, x, zeros(2), threat, rng)
    assert outcome.success.all()
    assert outcome.adversarial.flatten().tolist() == pytest.approx([0.58, 0.58])  # the first one
    assert not Path(asked=(), proposed=0.7).run(model, x, zeros(2), threat, rng).success.any()


def test_pgd_that_steps_over_the_gap_still_wins(rng: torch.Generator) -> None:
    """The gradient points up everywhere: the last point is past the only adversarial stretch."""
    model = Pointwise(lambda p: torch.where((p > 0.5) & (p < 0.6), p, p - 2))
    attack = PGD(steps=10, rel_step=0.25, random_start=False)
    outcome = attack.run(model, pixel(0.4), zeros(1), Threat(eps=0.6), rng)
    assert outcome.success.all()
    assert outcome.adversarial.item() == pytest.approx(0.55)  # 0.4 + 0.25 * 0.6


def test_an_illegal_question_does_not_count_and_an_illegal_proposal_is_projected(rng: torch.Generator) -> None:
    model, threat = Pointwise(lambda p: p - 0.8), Threat(eps=0.2)
    outcome = Path(asked=(0.9, 5.0), proposed=5.0).run(model, pixel(0.5, 0.65), zeros(2), threat, rng)
    assert outcome.adversarial.flatten().tolist() == pytest.approx([0.7, 0.85])
    assert outcome.success.tolist() == [False, True]


def test_a_proposal_that_is_not_a_number_is_no_success(rng: torch.Generator) -> None:
    model = Pointwise(lambda p: p - 0.8)
    assert not Path(asked=(math.nan,), proposed=math.nan).run(model, pixel(0.7), zeros(1), Threat(eps=0.2), rng).success


def test_success_is_judged_on_the_returned_tensor(trained: Any, rng: torch.Generator) -> None:
    model, x, y, _ = trained
    for attack in ATTACKS:
        outcome = attack.run(model, x, y, Threat(eps=0.08), rng)
        assert torch.equal(outcome.success, model(outcome.adversarial).argmax(1) != y)
        assert 0 < outcome.success.sum() < len(y)


def test_a_model_that_changes_its_mind_is_not_believed(rng: torch.Generator) -> None:
    """Fooled whenever it is asked, but not in the fresh forward pass at the end."""
    model = Pointwise(lambda p: torch.full_like(p, -1.0))
    model.lead = lambda p: torch.full_like(p, 1.0 if model.calls <= 4 else -1.0)
    outcome = Path(asked=(0.5,) * 3, proposed=0.5).run(model, pixel(0.5), zeros(1), Threat(eps=0.1), rng)
    assert model.calls == 5  # three questions, the proposal, the fresh pass
    assert not outcome.success.any()


def test_a_random_model_is_judged_at_the_last_point(rng: torch.Generator) -> None:
    path, x, threat = Path(asked=(0.55,), proposed=0.7), pixel(0.4), Threat(eps=0.3)
    for random, kept in ((False, 0.55), (True, 0.7)):
        model = Pointwise(lambda p: 0.05 - (p - 0.55).abs(), random=random)
        outcome = path.run(model, x, zeros(1), threat, rng)
        assert outcome.adversarial.item() == pytest.approx(kept)
        assert outcome.success.item() is not random


@pytest.mark.parametrize("lead", [lambda p: (p - 2) * math.nan ** (p > 9), lambda p: -(p * 0).sqrt() - 1])
def test_a_gradient_that_is_not_finite_is_no_win_and_no_crash(
    lead: Callable[[Tensor], Tensor], rng: torch.Generator
) -> None:
    model, x = Pointwise(lead), pixel(0.4, 0.6)
    leaf = x.clone().requires_grad_()
    (raw,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    oracle = Oracle(model, x, zeros(2), Threat(eps=0.1))
    assert oracle.gradient(x).isfinite().all()
    if not raw.isfinite().all():
        assert torch.equal(oracle.gradient(x), torch.zeros_like(x))
    outcome = FGSM().run(model, x, zeros(2), Threat(eps=0.1), rng)
    assert not outcome.success.any()
    assert outcome.adversarial.isfinite().all()


def test_a_gradient_that_never_arrives_is_zero(rng: torch.Generator) -> None:
    """A true step function without a surrogate: `vanished`, not an exception."""
    model, x = Pointwise(lambda p: (p > 0.5).float() - 0.5), pixel(0.4, 0.45)
    assert torch.equal(Oracle(model, x, zeros(2), Threat(eps=0.1)).gradient(x), torch.zeros_like(x))
    assert not FGSM().run(model, x, zeros(2), Threat(eps=0.2), rng).success.any()


class Layers(nn.Module):
    """Has whatever an attack might change: modes, batch statistics, a buffer that is rebound, existing gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.calls: Tensor
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return self.head(self.drop(self.norm(self.conv(x))).amax((2, 3)))


def snapshot(model: nn.Module) -> dict[str, object]:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    return {"state": state, "grads": grads, "flags": flags, "modes": [m.training for m in model.modules()]}


def same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("grads", [False, True])
def test_the_model_is_left_as_it_was(attack: Attack, grads: bool, rng: torch.Generator) -> None:
    model = Layers().train()
    model.norm.eval()  # a mixture of modes, as in fine-tuning with frozen statistics
    model.conv.weight.requires_grad_(False)
    x, y = torch.rand(5, 1, 6, 6), torch.tensor([0, 1, 2, 0, 1])
    if grads:
        model(x).sum().backward()
    buffer, before, image = model.calls, snapshot(model), x.clone()
    attack.run(model, x, y, Threat(eps=0.1), rng)
    assert same(before, snapshot(model))
    assert model.calls is buffer
    assert torch.equal(x, image)
    assert not x.requires_grad


def test_an_attack_runs_in_eval_mode(rng: torch.Generator) -> None:
    model = Layers()
    x, y = torch.rand(5, 1, 6, 6), torch.tensor([0, 1, 2, 0, 1])
    seen: set[bool] = set()
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, _inputs: seen.add(module.training))
    with attacked(model):
        model(x)
    PGD(steps=1).run(model, x, y, Threat(eps=0.1), rng)
    assert seen == {False}


def test_the_model_is_left_as_it_was_when_the_attack_breaks(rng: torch.Generator) -> None:
    class Breaks(Attack):
        def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
            oracle.gradient(x)
            raise ZeroDivisionError

    model = Layers()
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError):
        Breaks().run(model, torch.rand(3, 1, 6, 6), zeros(3), Threat(eps=0.1), rng)
    assert same(before, snapshot(model))


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_inside_no_grad(attack: Attack, trained: Any) -> None:
    model, x, y, _ = trained
    outside = attack(model, x[:20], y[:20], Threat(eps=0.1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        inside = attack(model, x[:20], y[:20], Threat(eps=0.1), torch.Generator().manual_seed(0))
    assert torch.equal(outside, inside)
    assert not outside.requires_grad
