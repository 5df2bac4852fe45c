"""Each check against outcomes made by hand; models that are masked on purpose are found, an honest one passes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import comb
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnsweep import registry
from snnsweep.attacks.gradient import FGSM, PGD
from snnsweep.attacks.query import Noise
from snnsweep.attacks.rules import ASSG, Pool, Rule, Surrogate, Training, together
from snnsweep.attacks.square import Square
from snnsweep.attacks.suites import Step, Suite, SuiteOutcome
from snnsweep.attacks.threat import Threat
from snnsweep.config import TrialConfig
from snnsweep.evaluation import Evaluation
from snnsweep.metrics import checks, probes
from snnsweep.metrics.audit import CHECKS, Audit, audit
from snnsweep.metrics.evidence import Evidence, exceeds, mcnemar
from snnsweep.neurons import SpikingNeuron
from snnsweep.result import PASS, Check, Result

N, THREAT = 1000, Threat(0.1)
OTHER = Surrogate("sigmoid", 4.0)
STEPS = (Step("fgsm", FGSM()), Step("pgd", PGD()), Step("second", PGD(), OTHER), Step("noise", Noise()))
SMALL = {
    "data.batch_size": 32,
    "encoder.time_steps": 2,
    "model.depth": 10,
    "model.width": 0.125,
    "train.lr": 1e-2,
    "threat.eps": 0.1,
    "attack.samples": 140,
}


@pytest.fixture(scope="module")
def trained() -> Evaluation:
    trial = Evaluation(TrialConfig.from_flat({**SMALL, "train.epochs": 4}))
    while not trial.trained:
        trial.epoch()
    return trial


@pytest.fixture
def model(trained: Evaluation) -> nn.Module:
    return trained.model


def first(count: int, total: int = N, start: int = 0) -> Tensor:
    """bool [total]: `count` samples from `start` on."""
    place = torch.arange(total)
    return (place >= start) & (place < start + count)


def evidence(model: Any, fooled: dict[str, Tensor], steps: tuple[Step, ...] = STEPS, **changed: Any) -> Evidence:
    """Nothing suspect but what is given; all samples are right, and those not named under a label stand."""
    n = len(next(iter(fooled.values()))) if fooled else N
    whole, none = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    outcome = SuiteOutcome(whole, {}, {}, {}, {})
    for label in dict.fromkeys([*(step.label for step in steps), *fooled]):
        cascaded = any(step.label == label and step.cascaded for step in steps)
        outcome.tried[label] = outcome.standing() if cascaded else whole
        outcome.fooled[label], outcome.lost[label] = fooled.get(label, none), none
    few = whole[: probes.PROBED]
    grid = {share * 0.1: few for share in probes.GRID}
    asked = probes.Probes(few, 0.1, 0.0, 0, 0.0, ~few, ~few, grid, few)
    base = Evidence(model, Suite(steps, {}), outcome, asked, False, 0.1, 0.0, 0.0, n)
    asked = replace(asked, **{name: changed.pop(name) for name in list(changed) if hasattr(asked, name)})
    return replace(base, **{"probes": asked, **changed})


def test_nothing_to_see(model: nn.Module) -> None:
    found = audit(evidence(model, {}))
    assert found.verdict == PASS
    assert (found.cause, found.warnings) == ("", [])
    names = [check.name for check in found.checks]
    assert names == [check.__name__ for check in CHECKS]
    assert {check.name for check in found.checks if check.verdict == "not run"} == {"transfer", "moving_loss"}
    assert set(found.metrics) == {f"audit/{name}" for name in names} - {"audit/transfer", "audit/moving_loss"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar(b: int, c: int) -> None:
    """Two-sided: twice the smaller tail of the fair coin, at most 1."""
    value, p = mcnemar(first(b, 200), first(c, 200, 100))
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert value == pytest.approx((b - c) / 200)
    assert p == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize(("count", "total", "is_more"), [(3, 64, False), (4, 64, True), (0, 0, False), (1, 1, False)])
def test_exceeds(count: int, total: int, is_more: bool) -> None:
    """P(X >= 3) = 0.026 and P(X >= 4) = 0.0038 of 64 at 1 %."""
    assert exceeds(count, total, 0.01) == is_more


@pytest.mark.parametrize(("more", "verdict"), [(7, PASS), (8, "suspect")])  # 2 / 2^7 = 0.016, 2 / 2^8 = 0.008
def test_single_step(model: nn.Module, more: int, verdict: str) -> None:
    found = checks.single_step(evidence(model, {"fgsm": first(100 + more), "pgd": first(100)}))
    assert (found.value, found.verdict) == (pytest.approx(more / N), verdict)
    assert checks.single_step(evidence(model, {"fgsm": first(90), "pgd": first(100)})).verdict == PASS
    assert checks.single_step(evidence(model, {}, STEPS[1:])).verdict == "not run"


@pytest.mark.parametrize(
    ("count", "n", "verdict"), [(2, N, PASS), (3, N, "suspect"), (2, 60, PASS), (3, 60, "suspect"), (4, 2000, PASS)]
)
@pytest.mark.parametrize("cascaded", [False, True])
def test_black_box(model: nn.Module, count: int, n: int, verdict: str, cascaded: bool) -> None:
    steps = (*STEPS[:3], Step("square", Square(), cascaded=cascaded))
    square = first(count, n, 30) | (first(9, n) if not cascaded else first(0, n))
    found = checks.black_box(evidence(model, {"pgd": first(20, n), "second": first(30, n), "square": square}, steps))
    assert (found.value, found.verdict) == (pytest.approx(count / n), verdict)


@pytest.mark.parametrize(("count", "verdict"), [(2, PASS), (3, "suspect")])
def test_random_search_is_set_beside_pgd_alone(model: nn.Module, count: int, verdict: str) -> None:
    """What only the second rule finds beside the draws is a miss of PGD under the training surrogate."""
    fooled = {"pgd": first(20), "second": first(60), "noise": first(10, start=10 + count)}
    given = evidence(model, fooled)
    found = checks.random_search(given)
    assert (found.value, found.verdict) == (count / N, verdict)
    assert checks.black_box(given).verdict == PASS
    assert checks.random_search(evidence(model, {}, STEPS[:3])).verdict == "not run"


def test_a_vanished_gradient_is_less_grave_once_square_was_tried(model: nn.Module) -> None:
    steps = (*STEPS, Step("square", Square(), cascaded=True))
    found = [checks.vanished_share(evidence(model, {}, given, vanished=0.02)) for given in (STEPS, steps)]
    assert [check.verdict for check in found] == ["fail", "suspect"]
    assert [check.about.rpartition("and ")[2] for check in found] == [
        "no strong attack that needs none has been tried",
        "Square alone needs none",
    ]


def test_transfer(model: nn.Module) -> None:
    found = checks.transfer(evidence(model, {"pgd": first(20), "transfer_twin": first(5, start=18)}))
    assert (found.value, found.verdict) == (0.003, "suspect")


@pytest.mark.parametrize(("more", "verdict"), [(50, PASS), (51, "fail")])
def test_rule_spread(model: nn.Module, more: int, verdict: str) -> None:
    given = evidence(model, {"pgd": first(300), "second": first(300 + more)})
    found = checks.rule_spread(given)
    assert (found.value, found.verdict) == (pytest.approx(more / N), verdict)
    assert ("which misleads" in audit(given).cause) == ("misleads" in found.about) == (verdict == "fail")


def test_what_a_cascade_fells_is_no_rule_spread(model: nn.Module) -> None:
    """Its steps try again on what stood: the training surrogate itself would fell more."""
    steps = (*STEPS[:2], replace(STEPS[2], cascaded=True))
    fooled = {"pgd": first(300), "second": first(200, start=300)}
    assert checks.rule_spread(evidence(model, fooled, steps)).verdict == "not run"
    both = (*STEPS[:3], replace(STEPS[2], label="third", cascaded=True))
    given = evidence(model, {"pgd": first(300), "second": first(320), "third": first(200, start=320)}, both)
    assert checks.rule_spread(given).value == pytest.approx(0.02)


def test_a_rule_that_reaches_no_spike_is_no_second_rule() -> None:
    """A neuron of one's own that is no `SpikingNeuron`: the pool rule alone changes something."""
    network = nn.Sequential(nn.MaxPool2d(2))
    network.random = False
    found = checks.rule_spread(evidence(network, {}, (*STEPS[:2], Step("pool", PGD(), Pool()))))
    assert (found.verdict, found.about) == (
        "not run",
        "the gradient is not exact, and no rule reaches what makes it so",
    )


@pytest.mark.parametrize("check", [checks.rule_spread, checks.single_step, checks.eps_grid])
def test_a_few_samples_say_nothing(model: nn.Module, check: Callable[[Evidence], Check]) -> None:
    few, enough = (dict.fromkeys(("pgd", "second", "fgsm"), first(n, n)) for n in (49, 50))
    assert check(evidence(model, few)).verdict == "not run"
    assert check(evidence(model, enough)).verdict == PASS
    assert audit(evidence(model, few)).verdict == "suspect"


def test_a_large_spread_of_few_samples_is_no_sign(model: nn.Module) -> None:
    assert checks.rule_spread(evidence(model, {"second": first(7, 60)})).verdict == PASS
    assert checks.rule_spread(evidence(model, {"second": first(8, 60)})).verdict == "fail"


def test_without_a_second_rule_there_is_no_pass(model: nn.Module) -> None:
    found = audit(evidence(model, {}, STEPS[:2]))
    assert found.verdict == "suspect"
    assert found.warnings == ["audit suspect, rule_spread: no PGD attacks every sample under two gradient rules"]
    own = Surrogate("atan", 2.0)  # the model's own is no second one
    assert audit(evidence(model, {}, (*STEPS[:2], Step("second", PGD(), own)))).verdict == "suspect"


@pytest.mark.parametrize(("hits", "verdict"), [(12, PASS), (14, "suspect")])  # of 64 at 0.1: p 0.026 and 0.005
def test_large_eps(model: nn.Module, hits: int, verdict: str) -> None:
    found = checks.large_eps(evidence(model, {}, large=first(hits, 64)))
    assert (found.value, found.threshold, found.verdict) == (hits / 64, 0.1, verdict)


@pytest.mark.parametrize(("more", "verdict"), [(7, PASS), (8, "suspect")])
@pytest.mark.parametrize("place", [0.05, 0.1, 0.2])  # a rise towards it
def test_eps_grid(model: nn.Module, more: int, verdict: str, place: float) -> None:
    low, high = first(30, 64), first(30 + more, 64)
    grid = {eps: high if eps >= place else low for eps in (0.02, 0.05, 0.1, 0.2)}
    found = checks.eps_grid(evidence(model, {}, grid=grid))
    assert (found.value, found.verdict) == (more / 64, verdict)


@pytest.mark.parametrize(("more", "verdict"), [(2, PASS), (3, "suspect")])  # of 64 at 0.5 %: p 0.04 and 0.004
def test_more_steps(model: nn.Module, more: int, verdict: str) -> None:
    found = checks.more_steps(evidence(model, {}, doubled=~first(more, 64)))
    assert (found.value, found.verdict) == (more / 64, verdict)


@pytest.mark.parametrize(("more", "verdict"), [(20, PASS), (21, "suspect")])
def test_a_longer_pgd_counts_by_doubling(model: nn.Module, more: int, verdict: str) -> None:
    steps = (*STEPS, Step("pgd160", PGD(steps=160)))  # four doublings of 10
    found = checks.more_steps(evidence(model, {"pgd": first(9), "pgd160": first(9 + more)}, steps, doubled=None))
    assert (found.value, found.verdict) == (pytest.approx(more / N / 4), verdict)


def test_moved() -> None:
    rise = torch.linspace(0, 1, 21)  # the last 10 of 20 steps: half the range
    early = torch.cat([torch.linspace(0, 5, 11), torch.linspace(4, 0, 10)])  # the best so far rests
    assert checks.moved(torch.stack([rise, 7 * rise - 3, early, torch.ones(21)], 1)).tolist() == pytest.approx(
        [0.5, 0.5, 0, 0]
    )


@pytest.mark.parametrize(("last", "verdict"), [(1.0, PASS), (1.2, "suspect")])
def test_moving_loss_of_those_that_stood(model: nn.Module, last: float, verdict: str) -> None:
    given = evidence(model, {"pgd": first(500)})
    losses = torch.cat([torch.linspace(0, 1, 10)[:, None], torch.linspace(1, last, 11)[:, None]]).expand(21, N).clone()
    losses[:, :500] = torch.linspace(0, 1, 21)[:, None]  # of the fallen nothing is asked
    given.outcome.losses["pgd"] = losses
    assert checks.moving_loss(given).verdict == verdict
    given.outcome.losses["pgd"] = losses[-19:]
    assert checks.moving_loss(given).verdict == "not run"


@pytest.mark.parametrize(
    ("changed", "name", "verdict"),
    [
        ({"vanished": 0.02}, "vanished_share", "fail"),
        ({"vanished": 0.01}, "vanished_share", PASS),
        ({"vanished_training": 0.02}, "vanished_training", "suspect"),
        ({"vanished_training": 0.011}, "vanished_training", PASS),
        ({"drift": 2e-4}, "randomness", "suspect"),
        ({"drift": 5e-5}, "randomness", PASS),
        ({"changed": 1}, "state_changed", "fail"),
        ({"softmax": 1.0}, "softmax_output", "suspect"),
        ({"saturated": first(4, 64)}, "saturated", "suspect"),
        ({"saturated": first(3, 64)}, "saturated", PASS),
    ],
)
def test_single_figures(model: nn.Module, changed: dict[str, Any], name: str, verdict: str) -> None:
    found = audit(evidence(model, {}, **changed))
    assert {check.name: check.verdict for check in found.checks}[name] == verdict
    assert found.verdict == verdict


@pytest.mark.parametrize(("count", "verdict"), [(2, PASS), (3, "suspect"), (10, "suspect"), (11, "fail")])
def test_successes_that_are_taken_back(model: nn.Module, count: int, verdict: str) -> None:
    given = evidence(model, {"pgd": first(300)})
    given.outcome.lost["pgd"] = first(count)
    found = checks.lost_share(given)
    assert (found.value, found.verdict) == (count / N, verdict)


def test_noise_before_a_cascaded_attack_cannot_be_set_beside_it(model: nn.Module) -> None:
    """What noise felled the later attack was not asked about."""
    later, square = Step("later", PGD(steps=50), cascaded=True), Step("square", Square(), cascaded=True)
    fooled = {"noise": first(40), "later": first(9, start=40)}
    assert checks.black_box(evidence(model, fooled, (*STEPS, later))).verdict == "not run"
    assert checks.black_box(evidence(model, fooled, (*STEPS[:3], later, STEPS[3]))).verdict == "suspect"
    found = checks.black_box(evidence(model, fooled | {"square": first(4, start=60)}, (*STEPS, later, square)))
    assert (found.value, found.verdict) == (0.004, "suspect")  # what Square alone felled
    assert checks.random_search(evidence(model, fooled, (*STEPS, later))).value == 0.04  # beside PGD, which tried all


def test_the_pool_rule_alone_is_no_second_rule_of_a_spiking_network(model: nn.Module) -> None:
    pool, both = Step("pool", PGD(), Pool()), Step("both", PGD(), together(ASSG(), Pool()))
    assert checks.rule_spread(evidence(model, {}, (*STEPS[:2], pool))).verdict == "not run"
    assert checks.rule_spread(evidence(model, {}, (*STEPS[:2], pool, both))).verdict == PASS


def test_fail_is_graver_than_suspect() -> None:
    def check(verdict: Any) -> Check:
        return Check(name=verdict, verdict=verdict, value=1, threshold=0, source="", about=f"it is {verdict}")

    found = Audit((check("suspect"), check(PASS), check("fail"), check("not run")))
    assert (found.verdict, found.cause) == ("fail", "it is fail")
    assert found.warnings == ["audit suspect, suspect: it is suspect"]


class Answers(nn.Module):
    """What the wrapped model answers, otherwise."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, z: Tensor) -> Tensor:
        return self.change(self.inner(z))


def probed(trial: Evaluation, change: Callable[[Tensor], Tensor]) -> probes.Probes:
    network, split = trial.model.network, trial.data.validation
    trial.model.network = Answers(network, change)
    try:
        quick = Suite(STEPS[:1], {})
        return probes.run(trial.model, split.images(slice(0, 16)), split.y[:16], quick, THREAT, 0, 16)
    finally:
        trial.model.network = network


def test_probes_see_what_they_look_for(trained: Evaluation) -> None:
    plain = probed(trained, lambda z: z)
    assert (plain.drift, plain.changed, plain.softmax, plain.saturated.any()) == (0, 0, 0, False)
    assert probed(trained, lambda z: (10 * z).softmax(-1)).softmax == 1
    assert probed(trained, lambda z: z + 0.01 * torch.randn_like(z)).drift > 1e-4
    loud = probed(trained, lambda z: 1e4 * z)
    assert torch.equal(loud.saturated, loud.correct)

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, z: Tensor) -> Tensor:
            self.seen += 1
            return z

    assert probed(trained, Counts()).changed == 1


def test_probes_by_hand(trained: Evaluation) -> None:
    """Each figure against the attack itself; twice the steps fell what half of them did, and more."""
    split = trained.data.validation
    x, y = split.images(slice(0, 24)), split.y[:24]
    found = probes.run(trained.model, x, y, Suite(STEPS, {}), THREAT, 3, 24)

    def stands(attack: PGD, threat: Threat, *rules: Rule) -> Tensor:
        right, alive = trained.model.eval()(x).argmax(1) == y, torch.ones(24, dtype=torch.bool)
        for rule in rules or (Training(),):
            chosen = (right & alive).nonzero().squeeze(1)
            with rule(trained.model):
                end = attack.run(trained.model, x[chosen], y[chosen], threat, torch.Generator().manual_seed(3))
            alive[chosen] &= ~end.success
        return right & alive

    assert list(found.grid) == pytest.approx([0.025, 0.05, 0.1, 0.2])
    for eps, standing in found.grid.items():
        assert torch.equal(standing, stands(PGD(), Threat(eps)))
    assert torch.equal(found.doubled, stands(PGD(steps=20), THREAT))
    assert (found.doubled <= found.grid[THREAT.eps]).all()
    assert torch.equal(found.large, stands(PGD(), Threat(0.5), Training(), OTHER))
    assert found.grid[0.025].sum() > found.grid[0.2].sum()
    longer = Suite((*STEPS, Step("pgd20", PGD(steps=20))), {})
    assert probes.run(trained.model, x, y, longer, THREAT, 3, 24).doubled is None


def attacked_with(trial: Evaluation, change: Callable[[nn.Module], None]) -> Result:
    """The result of a copy of the trained model that was masked afterwards."""
    masked = Evaluation(TrialConfig.from_flat({**SMALL, "train.epochs": 4}))
    masked.load_state_dict(trial.state_dict())
    change(masked.model)
    return masked.result()


class Cut(nn.Module):
    """An encoder whose code has no way back; on request of a few levels."""

    def __init__(self, inner: nn.Module, levels: int = 0):
        super().__init__()
        self.inner, self.levels, self.binary, self.random = inner, levels, inner.binary, inner.random

    def forward(self, x: Tensor) -> Tensor:
        coarse = (x * self.levels).floor().clamp(max=self.levels - 1) / (self.levels - 1) if self.levels else x
        return self.inner(coarse).detach()


def narrow(model: Any) -> None:
    for neuron in model.modules():
        if isinstance(neuron, SpikingNeuron):
            neuron.surrogate = partial(registry.surrogates.get("atan"), alpha=1e4)


def loud(model: Any) -> None:
    model.network = Answers(model.network, lambda z: 1e4 * z)


def detached(model: Any) -> None:
    model.encoder = Cut(model.encoder)


def quantised(model: Any) -> None:
    model.encoder = Cut(model.encoder, 4)


@pytest.mark.parametrize(
    ("mask", "telling"),
    [(narrow, "rule_spread"), (loud, "saturated"), (detached, "vanished_share"), (quantised, "vanished_share")],
)
def test_masked_on_purpose(trained: Evaluation, mask: Callable[[Any], None], telling: str) -> None:
    result = attacked_with(trained, mask)
    assert result.verdict in ("suspect", "fail")
    assert {check.name: check.verdict for check in result.checks}[telling] in ("suspect", "fail")
    assert (result.status == "infeasible") == (result.verdict == "fail") == bool(result.cause)
    assert result.verdict == "fail" or any("audit suspect" in text for text in result.warnings)


def test_the_same_model_unmasked_has_no_grave_sign(trained: Evaluation) -> None:
    plain = attacked_with(trained, lambda _: None)
    assert (plain.status, plain.cause) == ("finished", "")


def test_an_honest_adversarially_trained_ann_passes() -> None:
    own = {"neuron.name": "relu", "train.objective": "adversarial", "train.eps": 0.1, "train.epochs": 4}
    trial = Evaluation(TrialConfig.from_flat({**SMALL, **own}))
    while not trial.trained:
        trial.epoch()
    result = trial.result()
    assert result.verdict == PASS, [str(check) for check in result.checks]
    assert result.robust_accuracy > 0.3
