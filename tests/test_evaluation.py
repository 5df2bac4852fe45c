"""One trial on scikit-learn's digits: its figures, its warnings, its failures, and what it must not look at."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnsweep import data, measurement, registry
from snnsweep.attacks.gradient import PGD
from snnsweep.attacks.suites import Step, Suite
from snnsweep.config import Flat, TrialConfig
from snnsweep.errors import UserError
from snnsweep.evaluation import Evaluation, evaluate
from snnsweep.metrics import sparsity
from snnsweep.neurons import LIF
from snnsweep.result import PASS, Result

SMALL: Flat = {
    "data.subset": 600,
    "data.batch_size": 16,
    "encoder.time_steps": 2,
    "model.depth": 10,
    "model.width": 0.125,
    "train.epochs": 2,
    "train.lr": 1e-2,
    "threat.eps": 0.05,
    "attack.samples": 60,
}


def config(**own: object) -> TrialConfig:
    return TrialConfig.from_flat({**SMALL, **{key.replace("__", "."): value for key, value in own.items()}})


@pytest.fixture(autouse=True)
def _own_parts_go_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in registry.KINDS.values():
        parts.names()  # loads the built-in ones
        monkeypatch.setattr(parts, "_parts", dict(parts._parts))


@pytest.fixture(scope="module")
def result() -> Result:
    return evaluate(config())


def test_a_trial_learns_and_is_attacked(result: Result) -> None:
    assert result.status == "finished"
    assert (result.epochs, result.cause, len(result.history)) == (2, "", 2)
    assert result.clean_accuracy > 0.3  # chance is 0.1
    assert result.history[-1]["clean_accuracy"] == result.clean_accuracy
    assert result.history[1]["train/loss"] < result.history[0]["train/loss"]


def test_shares_are_shares(result: Result) -> None:
    unbounded = ("/n", "/l1", "/l2", "_s", "_ms", "_pj", "/acs", "/macs", "/synops", "/parameters")
    for name, value in result.metrics.items():
        assert math.isfinite(value), name
        assert value >= 0 or name.startswith("audit/"), name  # a gap between two attacks may go either way
        assert value <= 1 or name.endswith(unbounded), name


def test_the_worst_case_is_no_better_than_any_attack(result: Result) -> None:
    clean = result.metrics["robust_accuracy/clean"]
    for label in ("fgsm", "pgd", "pgd_second_rule", "noise"):
        assert result.robust_accuracy <= result.metrics[f"robust_accuracy/{label}"] <= clean
    assert result.robust_accuracy < clean  # eps 0.05 does break something


def test_times_add_up(result: Result) -> None:
    assert result.metrics["time/train_s"] == pytest.approx(sum(epoch["time/epoch_s"] for epoch in result.history))
    assert result.metrics["time/attack_s"] > 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_wilson_interval(hits: list[bool]) -> None:
    found = measurement.share("a", torch.tensor(hits))
    n, p, z = len(hits), sum(hits) / len(hits), 1.959963984540054
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found["a"] == p
    assert found["a/n"] == n
    assert found["a/low"] == pytest.approx(middle - half, abs=1e-9)
    assert found["a/high"] == pytest.approx(middle + half, abs=1e-9)


def without_times(result: Result) -> tuple[object, ...]:
    metrics = {name: value for name, value in result.metrics.items() if not name.startswith("time/")}
    history = [{k: v for k, v in epoch.items() if not k.startswith("time/")} for epoch in result.history]
    return metrics, history, result.warnings, result.status


@pytest.mark.parametrize("encoder", ["direct", "poisson"])
def test_same_seed_same_figures(encoder: str) -> None:
    """Bit for bit; another seed gives others."""
    own = {"encoder__name": encoder, "data__subset": 64, "train__epochs": 1, "attack__samples": 10}
    first, again, other = (evaluate(config(seed=seed, **own)) for seed in (3, 3, 4))
    assert without_times(first) == without_times(again)
    assert without_times(first) != without_times(other)


def test_the_test_split_changes_nothing() -> None:
    digits = registry.datasets.get("digits")

    @data.register("poisoned")
    class Poisoned:
        spec = digits.spec

        def read(self, folder: Path) -> data.Arrays:
            whole = digits().read(folder)
            rng = np.random.default_rng(0)
            x = rng.integers(0, 256, whole.test_x.shape, dtype=np.uint8)
            return data.Arrays(whole.train_x, whole.train_y, x, (whole.test_y + 1) % 10)

    own = {"data__subset": 64, "train__epochs": 1, "attack__samples": 10}
    clean, poisoned = (evaluate(config(data__name=name, **own)) for name in ("digits", "poisoned"))
    assert without_times(clean) == without_times(poisoned)


def test_the_validation_split_is_the_one_that_counts() -> None:
    """An untouched test split would prove nothing if no split were read."""
    trial = Evaluation(config(train__epochs=1))
    trial.epoch()
    before = trial.measurement.correct().sum()
    x, y = trial.data.validation.x, trial.data.validation.y
    trial.measurement.data = replace(trial.data, validation=data.Split(x, 9 - y))
    assert trial.measurement.correct().sum() < before


def test_on_epoch_is_called_after_each() -> None:
    seen: list[dict[str, float]] = []
    result = evaluate(config(data__subset=32, train__epochs=3, attack__samples=4), on_epoch=seen.append)
    assert tuple(seen) == result.history
    assert len(seen) == 3


def test_a_look_after_an_epoch_is_bounded_and_the_last_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    @data.register("many")
    class Many:
        spec = registry.datasets.get("digits").spec

        def read(self, folder: Path) -> data.Arrays:
            rng, y = np.random.default_rng(0), np.arange(6000) % 10
            x = rng.integers(0, 256, (6000, 1, 8, 8), np.uint8)
            return data.Arrays(x[:5900], y[:5900], x[5900:], y[5900:])

    asked: list[int] = []
    predict = measurement.predict

    def counted(forward: nn.Module, x: Tensor, random: bool) -> Tensor:
        asked.append(len(x))
        return predict(forward, x, random)

    monkeypatch.setattr(measurement, "predict", counted)
    own = {"data__name": "many", "data__batch_size": 50, "model__width": 0.05, "encoder__time_steps": 1}
    for subset, looked in ((20, 256), (2700, 300)):
        trial = Evaluation(config(data__subset=subset, **own))
        monkeypatch.setattr(trial.trainer, "split", data.Split(trial.data.train.x[:20], trial.data.train.y[:20]))
        asked.clear()
        first = trial.epoch()
        assert sum(asked) == looked
        assert first["clean_accuracy"] == trial.measurement.correct()[:looked].double().mean()
        asked.clear()
        last = trial.epoch()
        assert sum(asked) == len(trial.data.validation) == 590
        assert last["clean_accuracy"] == trial.measurement.correct().double().mean()


def test_no_attack_at_eps_0() -> None:
    trial = Evaluation(config(threat__eps=0, train__epochs=1, attack__samples=30))
    trial.epoch()
    still = trial.result()
    assert still.robust_accuracy == still.metrics["robust_accuracy/clean"] > 0


@pytest.fixture
def dead() -> None:
    """Registers a surrogate that is zero everywhere."""

    @registry.surrogates.register("dead")
    def zero(u: Tensor, alpha: float) -> Tensor:
        """No gradient at all."""
        return torch.zeros_like(u)


def only_training_rule() -> Suite:
    """PGD under the training surrogate alone."""
    return Suite((Step("pgd", PGD(steps=2)),), {})


DEAD = {"data__subset": 64, "train__epochs": 1, "attack__samples": 10}


def test_a_network_that_never_fires_is_infeasible() -> None:
    result = evaluate(config(neuron__v_threshold=1e9, **DEAD))  # no current reaches it, and no surrogate
    assert result.metrics["gradient_sparsity/vanished_share"] == 1
    assert result.metrics["gradient_sparsity/second_rule/vanished_share"] == 1
    assert result.gradient_sparsity == 0  # not 1: a dead network is no sparse one
    assert result.status == "infeasible"
    assert result.cause.startswith("the input gradient vanishes for 100.0% of the samples")


@pytest.mark.usefixtures("dead")
def test_a_starved_surrogate_is_feasible_only_if_a_second_rule_attacked() -> None:
    registry.suites.register("one_rule")(only_training_rule)
    two = evaluate(config(neuron__surrogate="dead", **DEAD))
    assert two.metrics["gradient_sparsity/vanished_share"] == 1
    assert two.metrics["gradient_sparsity/second_rule/vanished_share"] == 0
    assert (two.status, two.cause) == ("finished", "")
    one = evaluate(config(neuron__surrogate="dead", attack__suite="one_rule", **DEAD))
    assert one.status == "infeasible"


def test_a_sample_counts_as_vanished_only_where_every_rule_finds_nothing() -> None:
    """Each of two rules is blind on one half of the samples: no sample is without a direction."""
    trial = Evaluation(config(data__subset=64))
    x, y = trial.data.validation.images(slice(0, 40)), trial.data.validation.y[:40]
    first = torch.arange(40) < 20

    class Half:
        def __init__(self, blind: Tensor):
            self.blind = blind

        @contextmanager
        def __call__(self, model: nn.Module) -> Iterator[None]:
            whole = sparsity.vanished
            sparsity.vanished = lambda *_: self.blind
            yield
            sparsity.vanished = whole

    assert trial.measurement.without_direction(x, y, {Half(first), Half(~first)}) == 0
    assert trial.measurement.without_direction(x, y, {Half(first), Half(first | (torch.arange(40) == 30))}) == 0.5


def test_what_fresh_noise_alone_takes_is_told() -> None:
    """At eps 0 no attack does anything: what falls, falls to the encoder's noise."""
    own = {"encoder__name": "poisson", "encoder__time_steps": 4, "train__epochs": 4, "threat__eps": 0}
    still = evaluate(config(**own, attack__samples=144))
    clean, left = still.metrics["robust_accuracy/clean"], still.metrics["robust_accuracy/unattacked"]
    assert left < clean - 0.02
    assert still.robust_accuracy == pytest.approx(left, abs=0.05)
    assert any(f"without any attack {left:.3f} would stand" in text for text in still.warnings)


def test_a_gradient_that_is_not_a_number_counts_as_vanished() -> None:
    """The attack gets nothing from it either."""

    @registry.surrogates.register("broken")
    def broken(u: Tensor, alpha: float) -> Tensor:
        """Not a number as soon as the module attacks, whatever training did."""
        return torch.full_like(u, math.nan)

    registry.suites.register("one_rule")(only_training_rule)
    trial = Evaluation(config(attack__suite="one_rule", **DEAD))
    for module in trial.model.modules():
        if isinstance(module, LIF):
            module.surrogate = lambda u: broken(u, 1.0)
    result = trial.result()
    assert result.status == "infeasible"
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_a_gradient_that_is_cut_off_counts_as_vanished() -> None:
    @registry.encoders.register("hard")
    class Hard(registry.encoders.get("direct")):  # type: ignore[misc]
        """Pixels above a half; without a way back."""

        def forward(self, x: Tensor) -> Tensor:
            return (x > 0.5).float().expand(self.time_steps, *x.shape)

    result = evaluate(config(encoder__name="hard", **DEAD))
    assert result.status == "infeasible"
    assert result.metrics["gradient_sparsity/vanished_share"] == 1
    assert result.metrics["gradient_sparsity/encoded"] > 0  # behind the encoder there is one


def test_a_diverged_training_is_a_failed_trial() -> None:
    batches = iter(range(1000))

    @registry.trainers.register("explodes")
    def explodes(model: nn.Module, x: Tensor, y: Tensor, config: TrialConfig, rng: torch.Generator) -> Tensor:
        """Cross-entropy; infinite once in the third epoch, of two batches each."""
        return nn.functional.cross_entropy(model(x), y) * (math.inf if next(batches) == 4 else 1)

    result = evaluate(config(train__objective="explodes", data__subset=64, data__batch_size=32, train__epochs=9))
    assert (result.status, result.epochs, len(result.history)) == ("failed", 2, 2)
    assert result.cause == "Diverged: the training loss is not finite in epoch 3"
    assert result.metrics == {}


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"cuda:99 is not there"):
        evaluate(config(device="cuda:99"))


CALM = {
    "clean_accuracy": 0.9,
    "clean_accuracy/low": 0.85,
}


@pytest.fixture(scope="module")
def trial() -> Evaluation:
    return Evaluation(config(data__subset=64, device="cpu"))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"clean_accuracy/low": 0.1}, ["near chance (0.104)"]),  # 15 of 144 are of one class
        ({"clean_accuracy/low": 0.11}, []),
        ({"activity/silent_share": 0.25}, ["25% of the spiking layers never fire"]),
        ({"clean_accuracy/low": 0.05, "activity/silent_share": 1.0}, ["near chance", "100% of the spiking"]),
    ],
)
def test_warnings(trial: Evaluation, changed: dict[str, float], words: list[str]) -> None:
    found = trial.measurement.warnings({**CALM, **changed})
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_chance_is_what_the_commonest_class_scores(trial: Evaluation) -> None:
    split = trial.data.validation
    y = torch.where(torch.arange(len(split)) % 10 == 0, split.y, 3)
    lopsided = measurement.Measurement(trial.model, trial.config, replace(trial.data, validation=replace(split, y=y)))
    (text,) = lopsided.warnings(CALM)
    assert f"near chance ({(y == 3).double().mean():.3f})" in text


def test_an_ann_twin_needs_no_second_rule() -> None:
    twin = evaluate(config(neuron__name="relu", **DEAD))
    (spread,) = (check for check in twin.checks if check.name == "rule_spread")
    assert (spread.verdict, spread.value) == (PASS, 0)
    assert not any("under two gradient rules" in text for text in twin.warnings)


def test_an_ann_twin_behind_a_code_has_no_exact_gradient() -> None:
    """Its code is a staircase with a straight-through gradient; on the code itself the twin's is exact."""
    for space, verdict in (("pixel", "not run"), ("encoded", PASS)):
        twin = evaluate(config(neuron__name="relu", encoder__name="phase", threat__space=space, **DEAD))
        assert {check.name: check.verdict for check in twin.checks}["rule_spread"] == verdict


def test_another_second_rule_is_told(trial: Evaluation) -> None:
    own = Evaluation(config(neuron__surrogate="sigmoid", neuron__alpha=5.0, data__subset=64, device="cpu"))
    assert any("the second rule is atan 2 here" in text for text in own.measurement.warnings(CALM))


def test_warnings_of_a_real_trial() -> None:
    trail = evaluate(config(attack__suite="trail", encoder__name="poisson", **DEAD))
    assert any("under two gradient rules" in text for text in trail.warnings)
    assert any("fresh noise" in text for text in trail.warnings)
    assert trail.verdict == "suspect"


def test_a_training_surrogate_like_the_second_rule_has_another_one() -> None:
    own = evaluate(config(neuron__surrogate="sigmoid", neuron__alpha=4.0, **{**DEAD, "attack__samples": 50}))
    (spread,) = (check for check in own.checks if check.name == "rule_spread")
    assert spread.verdict != "not run"
