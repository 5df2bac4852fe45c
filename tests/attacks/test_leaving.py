"""Samples that leave as they fall: the verdicts, the points and the losses of the whole run, in fewer questions.

In float64, so that no kernel's rounding by the size of a batch turns a spike.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from snnsweep.attacks import Attack, Oracle, Threat, Transfer, oracle, suites, target
from snnsweep.attacks.adaptive import SAPGD
from snnsweep.attacks.apgd import APGD
from snnsweep.attacks.gradient import BIM, FGSM, MIM, PGD, RFGSM
from snnsweep.attacks.query import Noise
from snnsweep.attacks.rules import ASSG, BPTR, HART, PDSG, RGA, Pool, Rule, Second, Training, per_sample, together
from snnsweep.attacks.suites import Step, Suite
from snnsweep.metrics.checks import moved
from snnsweep.models.folding import folded

THREATS = [Threat(0.05), Threat(0.4, "l2"), Threat(0.05, space="encoded"), Threat(0.5, "l2", "encoded")]
TRAINING = Training()
ATTACKS = [PGD(5), FGSM(), BIM(4), MIM(5), RFGSM(), APGD(7), SAPGD(5), Noise(4)]


class Exact(NamedTuple):
    model: Any
    x: Tensor
    y: Tensor


@pytest.fixture(scope="module")
def exact(trained: Any) -> Exact:
    """In float64, and only samples that are right."""
    model, x = deepcopy(trained.model).double(), trained.x[:60].double()
    right = model(x).argmax(1) == trained.y[:60]
    return Exact(model, x[right], trained.y[:60][right])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def agree(attack: Attack, exact: Exact, threat: Threat, rule: Rule = TRAINING) -> tuple[Tensor, int, int]:
    """Runs it whole and with leaving, and compares; the fallen, and how many samples each run passed to the model."""
    asked: list[int] = []
    watch = exact.model.network.register_forward_pre_hook(lambda _, args: asked.append(args[0].shape[1]))
    counts, ends = [], []
    for settings in ({}, {"batch": 7, "leaves": True}):
        with rule(exact.model):
            ends.append(attack.run(exact.model, exact.x, exact.y, threat, generator(), **settings))
        counts.append(sum(asked))
        asked.clear()
    watch.remove()
    whole, left = ends
    assert torch.equal(left.success, whole.success)
    torch.testing.assert_close(left.adversarial, whole.adversarial, rtol=0, atol=1e-9)
    assert torch.equal(left.lost, whole.lost)
    assert not left.rescued.any()
    if whole.losses is not None and left.losses is not None:
        gone = left.losses.isnan()
        torch.testing.assert_close(left.losses[~gone], whole.losses[~gone].to(left.losses.dtype))
        assert not gone[:, ~whole.success].any()
        assert not gone[0].any()
        assert (gone[1:] >= gone[:-1]).all()
    return whole.success, counts[0], counts[1]


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_verdicts_are_those_of_the_whole_run(attack: Attack, threat: Threat, exact: Exact) -> None:
    success, _, _ = agree(attack, exact, threat)
    assert 0 < success.sum() < len(success)


@pytest.mark.parametrize("rule", [Second(), BPTR(), RGA(), HART(), Pool(), together(HART(0.5), Pool())], ids=str)
def test_verdicts_under_other_rules(rule: Rule, exact: Exact) -> None:
    assert per_sample(rule)
    agree(PGD(5), exact, Threat(0.05), rule)


def test_transfer(exact: Exact, trained: Any) -> None:
    source = deepcopy(exact.model)
    with torch.no_grad():
        for weight in source.parameters():
            weight.mul_(1.01)
    success, _, _ = agree(Transfer(source, PGD(4)), exact, Threat(0.08))
    assert success.any()


def test_who_has_fallen_is_asked_about_no_more(exact: Exact) -> None:
    success, whole, left = agree(PGD(8), exact, Threat(0.2))
    n, fell = len(success), int(success.sum())
    assert fell > n / 2
    assert whole == n * (8 + 2)
    assert left <= n + 8 * n - 2 * fell


def test_rare_looks_change_nothing(exact: Exact, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where each one would wait for it."""
    _, _, often = agree(PGD(8), exact, Threat(0.1))
    monkeypatch.setattr(oracle, "LOOKS", {"cpu": 3})
    _, whole, rarely = agree(PGD(8), exact, Threat(0.1))
    assert often < rarely < whole


def test_between_two_looks_nothing_waits_for_the_device(exact: Exact, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device whatever would read a value raises."""
    monkeypatch.setattr(oracle, "LOOKS", {"meta": 100})
    x, y = (each.to("meta") for each in (torch.rand(4, 1, 6, 6), torch.zeros(4, dtype=torch.long)))
    model, threat = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).to("meta"), Threat(0.1)
    asked = Oracle(model, x, y, threat, leaves=True, batch=2)
    assert PGD(5, random_start=False).propose(asked, x, y, threat, generator()).shape == x.shape
    assert len(asked.losses) == 5


SUITE = Suite(
    (
        Step("pgd", PGD(25, 0.1)),
        Step("second", MIM(3), Second()),
        Step("assg", PGD(3), ASSG()),
        Step("more", APGD(5), cascaded=True),
        Step("noise", Noise(3), cascaded=True),
    ),
    {},
)


def test_a_suite_says_the_same_whatever_its_batch(exact: Exact) -> None:
    """Who falls, and of those that stand the losses that the audit reads."""
    threat = Threat(0.05)
    whole = suites.run(*exact, SUITE, threat, 1, batch=60, leaves=False)
    for batch in (5, 60):
        found = suites.run(*exact, SUITE, threat, 1, batch=batch)
        for label in whole.fooled:
            assert torch.equal(found.fooled[label], whole.fooled[label]), label
            assert torch.equal(found.lost[label], whole.lost[label])
        stood = whole.tried["pgd"] & ~whole.fooled["pgd"]
        torch.testing.assert_close(found.losses["pgd"][:, stood], whole.losses["pgd"][:, stood])
        torch.testing.assert_close(moved(found.losses["pgd"][:, stood]), moved(whole.losses["pgd"][:, stood]))
        assert not found.losses["assg"].isnan().any()  # its statistics belong to places in the batch: nobody leaves


def test_what_shares_the_batch_runs_in_batches_to_the_end(exact: Exact) -> None:
    sizes: list[int] = []

    class Together(PGD):
        per_sample = False

        def propose(self, oracle: Oracle, x: Tensor, *rest: Any) -> Tensor:
            sizes.append(len(x))
            assert not oracle.leaves
            return super().propose(oracle, x, *rest)

    n = len(exact.x)
    for attack, rule in ((Together(2), Training()), (PGD(2), PDSG())):
        outcome = suites.run(*exact, Suite((Step("a", attack, rule),), {}), Threat(0.05), 0, batch=20)
        assert not outcome.losses["a"].isnan().any()
    assert sizes == [20] * (n // 20) + [n % 20]


def test_memory_that_does_not_suffice_is_halved() -> None:
    tried: list[int] = []

    def attempt(batch: int) -> str:
        tried.append(batch)
        if batch > 3:
            raise torch.OutOfMemoryError("too much")
        return "done"

    assert target.within_memory(attempt, 20) == "done"
    assert tried == [20, 10, 5, 3]
    with pytest.raises(torch.OutOfMemoryError):
        target.within_memory(lambda batch: attempt(batch + 3), 2)


@pytest.mark.parametrize("leaves", [False, True])
def test_no_parameter_asks_for_a_gradient_meanwhile(leaves: bool, exact: Exact) -> None:
    """A model whose only slope is its parameters' has none for an attack."""

    class Step01(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.fixed = nn.Parameter(torch.tensor(1.0), requires_grad=False)
            self.asked: list[bool] = []

        def forward(self, x: Tensor) -> Tensor:
            self.asked.append(self.scale.requires_grad)
            lead = self.scale * self.fixed * ((x.flatten(1)[:, 0] > 0.5).float() - 0.5)
            return torch.stack([torch.zeros_like(lead), lead], 1)

    model, x = Step01(), torch.full((2, 1, 1, 1), 0.45)
    outcome = PGD(2, random_start=False).run(
        model, x, torch.zeros(2, dtype=torch.long), Threat(0.2), generator(), leaves=leaves
    )
    assert not outcome.success.any()
    assert torch.equal(outcome.adversarial, x)
    assert not any(model.asked)
    assert model.scale.requires_grad
    assert not model.fixed.requires_grad
    assert model.scale.grad is None


def test_a_guide_is_followed_and_the_model_judges(trained: Any) -> None:
    model, x, y = trained.model, trained.x[:40], trained.y[:40]
    outcome = PGD(4).run(model, x, y, Threat(0.08), generator(), leaves=True, guide=folded(model, x[:1]))
    assert torch.equal(outcome.success, model(outcome.adversarial).argmax(1) != y)
    alone = PGD(4).run(model, x, y, Threat(0.08), generator())
    assert (outcome.success != alone.success).sum() <= 2  # rounding turns a spike now and then

    class Fooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -model(x)

    right = model(x).argmax(1) == y
    outcome = PGD(4).run(model, x, y, Threat(0.001), generator(), leaves=True, guide=Fooled())
    assert not outcome.success[right].any()
    assert outcome.lost[right].all()


def test_an_attack_of_ones_own_says_for_itself_that_samples_are_alone() -> None:
    class Mine(PGD):
        def propose(self, *given: Any) -> Tensor:
            return super().propose(*given).mean(0, keepdim=True)

    class Renamed(PGD):
        pass

    class Said(Mine):
        per_sample = True

    assert [kind().per_sample for kind in (Mine, Renamed, Said)] == [False, True, True]


@pytest.mark.parametrize("threat", THREATS)
def test_no_samples_are_no_mistake(threat: Threat, exact: Exact) -> None:
    assert len(PGD(2)(exact.model, exact.x[:0], exact.y[:0], threat, torch.Generator()).flatten()) == 0
