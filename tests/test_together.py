"""Trials evaluated together against `evaluate`, packed and not."""

from typing import Any

import pytest

from snnsweep import evaluate, evaluate_many, together
from snnsweep.config import TrialConfig
from snnsweep.evaluation import Evaluation
from snnsweep.result import Result

# A rate that moves no weight of fp32, so that rounding cannot grow, and a packed trial has the figures of a single one.
STILL: dict[str, Any] = {
    "data.subset": 32,
    "data.batch_size": 32,
    "encoder.time_steps": 1,
    "model.depth": 10,
    "model.width": 0.125,
    "train.epochs": 1,
    "train.optimizer": "sgd",
    "train.lr": 1e-30,
    "attack.samples": 4,
    "device": "cpu",
}


def config(seed: int, **own: Any) -> TrialConfig:
    return TrialConfig.from_flat({**STILL, "seed": seed, "neuron.v_threshold": 0.5 + 0.1 * seed, **own})


def figures(result: Result) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if not name.startswith("time/")}


def test_results_are_those_of_single_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "pays", lambda configs, data: True)
    configs = [config(0), config(1, **{"neuron.name": "if"}), config(2, **{"train.epochs": 2})]
    monkeypatch.setattr(together, "evaluate", lambda config, *given: Result(status="stopped", config=config))
    seen: list[int] = []
    found = evaluate_many(configs, on_epoch=lambda place, metrics: seen.append(place))
    assert sorted(seen) == [0, 2, 2]
    assert [one.config for one in found] == configs
    assert found[1].status == "stopped"  # of another architecture, and so alone
    for one in (found[0], found[2]):
        alone = evaluate(one.config)
        assert (one.status, one.epochs, len(one.history)) == (alone.status, alone.epochs, alone.epochs)
        assert figures(one) == pytest.approx(figures(alone), nan_ok=True)
        (said,) = set(one.warnings) - set(alone.warnings)
        assert "trained in a pack of up to 2 trials" in said


def test_where_it_does_not_pay_each_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "pays", lambda configs, data: False)
    monkeypatch.setattr(together, "evaluate", lambda config, *given: Result(status="stopped", config=config))
    configs = [config(0), config(1)]
    assert evaluate_many(configs) == [Result(status="stopped", config=config) for config in configs]


def test_a_trial_that_diverges_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "pays", lambda configs, data: True)
    monkeypatch.setattr(Evaluation, "result", lambda self: Result(status="finished", config=self.config))
    first: dict[str, Any] = {"train.lr": 1e38, "train.epochs": 2}
    bad, good = evaluate_many([config(0, **first), config(1, **{"train.epochs": 2})])
    assert bad.status == "failed"
    assert bad.cause.startswith("Diverged: ")
    assert (good.status, good.config.seed) == ("finished", 1)
