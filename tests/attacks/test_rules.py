"""A gradient rule changes the backward pass alone, and goes as it came."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep import models, registry
from snnsweep.attacks import Oracle, Threat
from snnsweep.attacks.rules import ASSG, BPTR, HART, PDSG, RGA, Pool, Rule, Second, Surrogate, Training, together
from snnsweep.config import TrialConfig
from snnsweep.errors import UserError
from snnsweep.models import SNN
from snnsweep.neurons import SpikingNeuron

FIXED_RULES = [Surrogate("sigmoid", 4.0), BPTR(), RGA(), HART(), PDSG(), ASSG()]
SPIKE_RULES = [*FIXED_RULES, Second()]  # the last looks at the surrogate that it finds
RULES = [Training(), *SPIKE_RULES, Pool(), Pool(2.0), together(ASSG(), Pool())]


def answers(model: SNN, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient at the image."""
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    (grad,) = torch.autograd.grad(cross_entropy(logits, y, reduction="sum"), leaf)
    return logits.detach(), grad


def surrogates(model: SNN) -> list[object]:
    return [module.surrogate for module in model.modules() if isinstance(module, SpikingNeuron)]


def contents(model: nn.Module) -> list[dict[str, object]]:
    """Every attribute of every module, by identity."""
    return [{name: id(value) for name, value in vars(module).items()} for module in model.modules()]


def built(**own: object) -> tuple[SNN, Tensor, Tensor]:
    """A small SEW-ResNet with max pooling and statistics of its own, with a batch."""
    flat = {"model.depth": 10, "model.width": 0.1, "encoder.time_steps": 3, "neuron.v_threshold": 0.5}
    torch.manual_seed(0)
    model = models.build(TrialConfig.from_flat({**flat, **own}))
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, 1, 8, 8))
    rng = torch.Generator().manual_seed(1)
    return model.eval(), torch.rand((5, 1, 8, 8), generator=rng), torch.arange(5)


def seeded(model: SNN, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(7)
    return *answers(model, x, y), torch.rand(())  # the last shows how much was drawn


@pytest.mark.parametrize(
    "own",
    [
        {"neuron.name": "if", "neuron.reset": "soft", "neuron.detach_reset": False},
        {"neuron.name": "lif", "neuron.noise": 0.2, "encoder.name": "poisson"},
        {"neuron.name": "plif", "neuron.learn_threshold": True, "model.residual": "membrane"},
        {"neuron.name": "psn", "neuron.noise": 0.2},
        {"neuron.name": "relu"},
    ],
    ids=str,
)
def test_the_forward_pass_is_exact_and_the_model_comes_back(own: dict[str, object]) -> None:
    model, x, y = built(**own)
    before, plain = contents(model), seeded(model, x, y)
    spiking = own["neuron.name"] != "relu"
    for rule in RULES:
        with rule(model):
            ruled = seeded(model, x, y)
        assert torch.equal(ruled[0], plain[0]), rule
        assert torch.equal(ruled[2], plain[2]), rule
        acts = rule != Training() and (spiking or rule not in SPIKE_RULES)
        assert torch.equal(ruled[1], plain[1]) is not acts, rule
        assert ruled[1].isfinite().all(), rule
        assert contents(model) == before
        with pytest.raises(ZeroDivisionError), rule(model):
            raise ZeroDivisionError
        assert contents(model) == before
        with rule(model), torch.no_grad():
            torch.manual_seed(7)
            assert torch.equal(model(x), plain[0]), rule
    assert all(torch.equal(a, b) for a, b in zip(seeded(model, x, y), plain, strict=True))


def test_nothing_but_neurons_and_pools_is_touched() -> None:
    model, _, _ = built()
    for rule in RULES:
        before = contents(model)
        with rule(model):
            touched = {
                type(module).__name__
                for module, old, new in zip(model.modules(), before, contents(model), strict=True)
                if old != new
            }
        expected = {"LIF"} if rule in SPIKE_RULES else {"MaxPool2d"}
        assert touched == (set() if rule == Training() else {"LIF", "MaxPool2d"} if rule == RULES[-1] else expected)


@pytest.mark.parametrize(("family", "alpha"), [("sigmoid", 4.0), ("atan", 0.5), ("atan", 5.0)])
def test_as_a_model_that_was_built_with_it(trained: Any, family: str, alpha: float) -> None:
    model, (x, y) = trained.model, (trained.x[:16], trained.y[:16])
    own = trained.config.to_flat() | {"neuron.surrogate": family, "neuron.alpha": alpha}
    twin = models.build(TrialConfig.from_flat(own)).eval()
    twin.load_state_dict(model.state_dict())
    logits, grad = answers(model, x, y)
    before = surrogates(model)
    with Surrogate(family, alpha)(model):
        ruled_logits, ruled_grad = answers(model, x, y)
    assert torch.equal(ruled_logits, logits)
    assert not torch.allclose(ruled_grad, grad)
    assert torch.equal(ruled_grad, answers(twin, x, y)[1])
    assert surrogates(model) == before
    assert torch.equal(answers(model, x, y)[1], grad)


def test_the_training_rule_is_the_surrogate_of_the_config(trained: Any) -> None:
    model, (x, y) = trained.model, (trained.x[:16], trained.y[:16])
    neuron = trained.config.neuron
    with Training()(model):
        own = answers(model, x, y)
    with Surrogate(neuron.surrogate, neuron.alpha)(model):
        named = answers(model, x, y)
    assert all(torch.equal(a, b) for a, b in zip(own, named, strict=True))


@pytest.mark.parametrize("rule", [Surrogate("sigmod", 1.0), HART(family="sigmod"), ASSG(family="sigmod", omega=1.0)])
def test_an_unknown_family_leaves_the_model_alone(rule: Rule) -> None:
    model, _, _ = built()
    before = contents(model)
    with pytest.raises(UserError, match="did you mean sigmoid"), rule(model):
        pass
    assert contents(model) == before


@pytest.mark.parametrize("inner", FIXED_RULES, ids=str)
@pytest.mark.parametrize("outer", SPIKE_RULES, ids=str)
def test_of_two_spike_rules_the_inner_one_holds_alone(outer: Rule, inner: Rule) -> None:
    model, x, y = built()

    def grads(*rules: Rule) -> list[Tensor]:
        with together(*rules)(model):
            return [answers(model, x + 0.1 * k, y)[1] for k in range(2)]

    assert all(map(torch.equal, grads(outer, inner), grads(inner)))
    before = contents(model)
    with outer(model):
        under = contents(model)
        with inner(model):
            pass
        assert contents(model) == under
    assert contents(model) == before


def test_together_is_one_inside_the_other() -> None:
    model, x, y = built()
    grads = []
    for context in (together(ASSG(), Pool()), together(Pool(), ASSG()), together(ASSG(), Training(), Pool())):
        with context(model):
            grads.append(answers(model, x, y)[1])
    with ASSG()(model), Pool()(model):
        grads.append(answers(model, x, y)[1])
    with ASSG()(model):
        alone = answers(model, x, y)[1]
    assert all(torch.equal(grad, grads[0]) for grad in grads)
    assert not torch.allclose(alone, grads[0])


def test_together_leaves_nothing_where_the_second_fails() -> None:
    model, _, _ = built()
    before = contents(model)
    with pytest.raises(UserError), together(Pool(), ASSG(), Surrogate("sigmod"))(model):
        pass
    assert contents(model) == before


def test_the_judge_sees_the_same_verdict_under_every_rule(trained: Any) -> None:
    model, x, y, _ = trained
    verdicts = []
    for rule in RULES:
        with rule(model):
            oracle = Oracle(model, x, y, Threat(eps=0.1))
            oracle.gradient(x)
            verdicts.append(oracle.fooled)
    assert all(torch.equal(verdict, verdicts[0]) for verdict in verdicts)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["atan", "sigmoid"]), st.floats(0.1, 10))
def test_equal_rules_are_one_rule(family: str, alpha: float) -> None:
    assert len({Surrogate(family, alpha), Surrogate(family, alpha), Surrogate(family, alpha + 1)}) == 2
    assert len({ASSG(omega=alpha), ASSG(omega=alpha), ASSG(omega=alpha + 1), ASSG()}) == 3
    assert len({together(ASSG(), Pool(alpha)), together(ASSG(), Pool(alpha)), together(ASSG(), Pool())}) == 2


def test_rules_are_told_apart() -> None:
    assert len(set(RULES)) == len(RULES)
    assert {registry.rules.get(name)() for name in registry.rules.names()} >= {
        Training(),
        BPTR(),
        RGA(),
        HART(),
        Pool(),
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: RGA(gamma=1.5), r"gamma.*\[0, 1\]; given 1.5"),
        (lambda: HART(width=0.0), "width.*above 0; given 0.0"),
        (lambda: Pool(sharpness=-1.0), "sharpness.*given -1.0"),
        (lambda: Pool(sharpness=float("inf")), "finite; given inf"),
        (lambda: ASSG(a=0.5), r"a is in \(0, 0.5\).*given 0.5"),
        (lambda: ASSG(family="sigmoid"), "with sigmoid give omega"),
        (lambda: ASSG(omega=0.0), "omega.*above 0; given 0.0"),
        (lambda: ASSG(b1=1.0), r"b1 and b2.*given 1.0 and 0.9"),
        (lambda: ASSG(b2=-0.1), r"given 0.9 and -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: Callable[[], Rule], words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()


@pytest.mark.parametrize(
    ("family", "alpha", "expected"),
    [
        ("atan", 2.0, ("sigmoid", 4.0)),
        ("sigmoid", 15.0, ("sigmoid", 4.0)),
        ("sigmoid", 8.0, ("atan", 2.0)),
        ("sigmoid", 4.001, ("atan", 2.0)),
        ("sigmoid", 2.0, ("atan", 2.0)),
    ],
)
def test_the_second_rule_is_never_about_the_training_surrogate(
    family: str, alpha: float, expected: tuple[str, float]
) -> None:
    model, x, y = built(**{"neuron.surrogate": family, "neuron.alpha": alpha})
    with Surrogate(*expected)(model):
        by_hand = answers(model, x, y)
    with Second()(model):
        assert all(map(torch.equal, answers(model, x, y), by_hand))
    assert not Second().changes_nothing(model)
    assert Second().changes_nothing(nn.Linear(2, 2))
