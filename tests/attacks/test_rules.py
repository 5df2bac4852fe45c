"""A gradient rule changes the backward pass alone, and goes as it came."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from snnsweep import models
from snnsweep.attacks import Oracle, Threat
from snnsweep.attacks.rules import Surrogate, Training
from snnsweep.config import TrialConfig
from snnsweep.models import SNN
from snnsweep.neurons import SpikingNeuron


def answers(model: SNN, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient at the image."""
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    (grad,) = torch.autograd.grad(cross_entropy(logits, y, reduction="sum"), leaf)
    return logits.detach(), grad


def surrogates(model: SNN) -> list[object]:
    return [module.surrogate for module in model.modules() if isinstance(module, SpikingNeuron)]


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


def test_the_training_surrogate_comes_back_after_an_exception(trained: Any) -> None:
    before = surrogates(trained.model)
    with pytest.raises(ZeroDivisionError), Surrogate("sigmoid", 1.0)(trained.model):
        raise ZeroDivisionError
    assert surrogates(trained.model) == before


def test_an_unknown_family_leaves_the_model_alone(trained: Any) -> None:
    before = surrogates(trained.model)
    with pytest.raises(Exception, match="did you mean sigmoid"), Surrogate("sigmod", 1.0)(trained.model):
        pass
    assert surrogates(trained.model) == before


def test_rules_nest(trained: Any) -> None:
    model = trained.model
    before = surrogates(model)
    with Surrogate("sigmoid", 1.0)(model):
        outer = surrogates(model)
        with Surrogate("atan", 3.0)(model):
            assert surrogates(model) != outer
        assert surrogates(model) == outer
    assert surrogates(model) == before


def test_the_judge_sees_the_same_verdict_under_every_rule(trained: Any) -> None:
    model, x, y, _ = trained
    verdicts = []
    for rule in (Training(), Surrogate("sigmoid", 4.0)):
        with rule(model):
            oracle = Oracle(model, x, y, Threat(eps=0.1))
            oracle.gradient(x)
            verdicts.append(oracle.fooled)
    assert torch.equal(*verdicts)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["atan", "sigmoid"]), st.floats(0.1, 10))
def test_equal_rules_are_one_rule(family: str, alpha: float) -> None:
    assert len({Surrogate(family, alpha), Surrogate(family, alpha), Surrogate(family, alpha + 1)}) == 2
