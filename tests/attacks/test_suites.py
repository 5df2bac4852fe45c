"""A suite's verdicts against brute force over its attacks, one at a time."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnsweep import neurons, registry
from snnsweep.attacks import Threat, suites
from snnsweep.attacks.gradient import FGSM, PGD
from snnsweep.attacks.query import Noise
from snnsweep.attacks.rules import Surrogate, Training
from snnsweep.attacks.suites import Step, Suite, SuiteOutcome
from snnsweep.config import DEFAULTS, NeuronConfig
from snnsweep.errors import UserError

STEPS = (
    Step("fgsm", FGSM()),
    Step("pgd", PGD(steps=2)),
    Step("other", PGD(steps=2), Surrogate("sigmoid", 4.0)),
    Step("noise", Noise(draws=2)),
)
SUITE, THREAT = Suite(STEPS, {}), Threat(eps=0.06)


@given(st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=20))
def test_standing_is_the_worst_case_of_each_sample(rows: list[tuple[bool, ...]]) -> None:
    correct, *broken = (torch.tensor(column) for column in zip(*rows, strict=True))
    tried = dict.fromkeys("abc", correct)
    outcome = SuiteOutcome(correct, tried, dict(zip("abc", broken, strict=True)), {}, {})
    assert outcome.standing().tolist() == [right and not any(hits) for right, *hits in rows]
    for i, label in enumerate("abc", start=1):
        assert outcome.standing(label).tolist() == [row[0] and not row[i] for row in rows]
    assert torch.equal(outcome.correct, correct)  # untouched by the questions


def test_each_verdict_by_brute_force(trained: Any) -> None:
    """Samples that are right, attacked to the end, each step from the beginning of its own stream.

    Starts are drawn sample by sample: other batches than the suite's change nothing. Noise draws for all at once.
    """
    model, (x, y) = trained.model, (trained.x[:60], trained.y[:60])
    outcome = suites.run(model, x, y, SUITE, THREAT, seed=5, batch=16)
    correct = model(x).argmax(1) == y
    assert torch.equal(outcome.correct, correct)
    assert 0 < correct.sum() < len(y)
    chosen = [i for i in range(len(y)) if correct[i]]
    for step in STEPS:
        rng, size = torch.Generator().manual_seed(5), len(chosen) if step.label == "noise" else 7
        expected = torch.zeros(len(y), dtype=torch.bool)
        with step.rule(model):
            for start in range(0, len(chosen), size):
                part = chosen[start : start + size]
                adv = step.attack(model, x[part], y[part], THREAT, rng)
                expected[part] = model(adv).argmax(1) != y[part]
        assert torch.equal(outcome.fooled[step.label], expected)
        share = outcome.standing(step.label).double().mean().item()
        assert share == pytest.approx(1 - (~correct | expected).double().mean().item())
    assert outcome.fooled["pgd"].any()
    assert not torch.equal(outcome.fooled["pgd"], outcome.fooled["noise"])
    assert outcome.standing().sum() <= min(outcome.standing(step.label).sum() for step in STEPS)


def test_a_step_does_not_depend_on_the_others(trained: Any) -> None:
    model, (x, y) = trained.model, (trained.x[:30], trained.y[:30])
    whole = suites.run(model, x, y, SUITE, THREAT, seed=1, batch=10).fooled
    for step in STEPS[::-1]:
        alone = suites.run(model, x, y, Suite((step,), {}), THREAT, seed=1, batch=10).fooled
        assert torch.equal(alone[step.label], whole[step.label])


def test_a_cascaded_step_attacks_what_stands_and_nothing_else(trained: Any) -> None:
    model, (x, y) = trained.model, (trained.x[:40], trained.y[:40])
    steps = (
        STEPS[0],
        Step("more", PGD(steps=6, rel_step=0.5), cascaded=True),
        STEPS[1],
        replace(STEPS[2], cascaded=True),
    )
    outcome = suites.run(model, x, y, Suite(steps, {}), THREAT, seed=2, batch=40)
    alone = suites.run(model, x, y, Suite(steps[:1], {}), THREAT, seed=2, batch=40).standing()
    assert torch.equal(outcome.tried["more"], alone)
    assert torch.equal(outcome.tried["pgd"], outcome.correct)  # not cascaded: every sample that is right
    assert (outcome.fooled["more"] <= alone).all()
    assert 0 < outcome.fooled["more"].sum() < alone.sum()
    end = steps[1].attack.run(model, x[alone], y[alone], THREAT, torch.Generator().manual_seed(2))
    assert torch.equal(outcome.fooled["more"][alone], end.success)
    before = outcome.correct & ~outcome.fooled["fgsm"] & ~outcome.fooled["more"] & ~outcome.fooled["pgd"]
    assert torch.equal(outcome.tried["other"], before)
    assert torch.equal(outcome.standing(), before & ~outcome.fooled["other"])


@pytest.mark.parametrize("labels", [("a", "a"), ("a", "then_b"), ("transfer_x",), ("clean",), ("low",), ("pgd/low",)])
def test_labels_whose_figures_would_overwrite_others(labels: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="labels of their own; given") as caught:
        Suite(tuple(Step(label, FGSM()) for label in labels), {})
    assert repr(labels[-1]) in str(caught.value)


def test_nothing_right_nothing_to_attack(trained: Any) -> None:
    model, x = trained.model, trained.x[:10]
    wrong = (model(x).argmax(1) + 1) % 10
    outcome = suites.run(model, x, wrong, SUITE, THREAT, seed=0, batch=4)
    assert not outcome.correct.any()
    assert not any(fooled.any() for fooled in outcome.fooled.values())
    assert not outcome.standing().any()


def test_eps_0_breaks_nothing(trained: Any) -> None:
    model, (x, y) = trained.model, (trained.x[:40], trained.y[:40])
    outcome = suites.run(model, x, y, SUITE, Threat(eps=0), seed=0, batch=40)
    assert torch.equal(outcome.standing(), outcome.correct)


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        ((Training(),), 1),
        ((Training(), Surrogate("atan", 2.0)), 1),  # the training's own, by another name
        ((Training(), Surrogate("sigmoid", 4.0)), 2),
        ((Surrogate("atan", 1.0), Surrogate("atan", 1.0)), 1),
        ((Training(), Surrogate("atan", 1.0), Surrogate("atan", 3.0)), 3),
    ],
)
def test_rules_are_counted_by_what_they_do(rules: tuple[Any, ...], count: int, trained: Any) -> None:
    suite = Suite(tuple(Step(str(i), FGSM(), rule) for i, rule in enumerate(rules)), {})
    assert len(suite.rules(trained.model)) == count


def test_a_model_without_spiking_neurons_has_its_own_gradient_alone() -> None:
    """A second rule that reaches nothing must not pass for a second rule."""
    assert registry.suites.get("quick")().rules(torch.nn.Linear(2, 2)) == {Training()}


def test_a_rule_that_changes_one_of_two_networks_is_a_second_rule() -> None:
    def layer(**own: Any) -> torch.nn.Module:
        return neurons.build(NeuronConfig(**own), 2)

    suite = Suite((Step("a", FGSM()), Step("b", FGSM(), Surrogate("sigmoid", 4.0))), {})
    own, other = {"surrogate": "sigmoid", "alpha": 4.0}, {"surrogate": "atan", "alpha": 2.0}
    assert len(suite.rules(torch.nn.Sequential(layer(**own), layer(**own)))) == 1
    for pair in ((own, other), (other, own)):
        assert len(suite.rules(torch.nn.Sequential(*(layer(**one) for one in pair)))) == 2


def test_the_search_attacks_under_two_rules(trained: Any) -> None:
    assert len(registry.suites.get(DEFAULTS["attack.suite"])().rules(trained.model)) >= 2
