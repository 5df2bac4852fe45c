"""Every figure of a real trial has a name that `result.py` knows, and a `Result` keeps its value on its way."""

import math

import pytest
from pydantic import ValidationError

from snnsweep import models, registry
from snnsweep.config import TrialConfig
from snnsweep.errors import UnknownName
from snnsweep.evaluation import evaluate
from snnsweep.metrics import layers
from snnsweep.result import (
    DEFAULT_OBJECTIVES,
    FAMILIES,
    OBJECTIVES,
    PER_ATTACK,
    PER_CHECK,
    PER_EPS,
    Check,
    Result,
    direction,
)

INTERVAL = ("/n", "/low", "/high")  # what a figure carries, beside its value
TINY = {
    "data.subset": 100,
    "encoder.time_steps": 2,
    "model.depth": 10,
    "model.width": 0.05,
    "train.epochs": 1,
    "attack.samples": 20,
}


@pytest.fixture(scope="module")
def result() -> Result:
    return evaluate(TrialConfig.from_flat(TINY))


def figure(metric: str) -> str:
    """The figure that a metric belongs to."""
    for suffix in INTERVAL:
        metric = metric.removesuffix(suffix)
    return metric


def test_every_metric_is_known(result: Result) -> None:
    assert {direction(figure(metric)) for metric in result.metrics} == {"maximize", "minimize"}  # raises where not


def test_every_known_metric_is_reported(result: Result) -> None:
    assert set(result.metrics) >= set(OBJECTIVES)
    assert set(DEFAULT_OBJECTIVES) <= set(OBJECTIVES)


@pytest.mark.parametrize("metric", DEFAULT_OBJECTIVES)
def test_the_main_figures_carry_their_interval(result: Result, metric: str) -> None:
    value, count, low, high = (result.metrics[metric + suffix] for suffix in ("", *INTERVAL))
    assert 0 <= low <= value <= high <= 1
    assert count == (144 if metric == "clean_accuracy" else 20)  # a tenth of the 1,438 training images


def test_a_figure_for_each_attack(result: Result) -> None:
    labels = {step.label for step in registry.suites.get("quick")().steps}
    named = {metric.removeprefix(PER_ATTACK) for metric in result.metrics if metric.startswith(PER_ATTACK)}
    intervals = {label + suffix for label in labels for suffix in INTERVAL}
    over_eps = {name for name in named if name.startswith(PER_EPS.removeprefix(PER_ATTACK))}
    assert {name.count("/") for name in over_eps} == {1, 2}  # a multiple of eps, and its n and interval
    assert named - over_eps == labels | intervals | {"clean", "n", "low", "high"}


LAYERS = {
    "gradient_sparsity/zero_share/": layers.leaves,
    "gradient_sparsity/hoyer/": layers.leaves,
    "gradient_sparsity/weights/": layers.weighted,
    "gradient_sparsity/weights_zero_share/": layers.weighted,
    "activity/firing_rate/": layers.neurons,
}


@pytest.mark.parametrize("prefix", LAYERS)
def test_a_figure_for_each_layer(result: Result, prefix: str) -> None:
    named = {metric.removeprefix(prefix) for metric in result.metrics if metric.startswith(prefix)}
    assert named == set(LAYERS[prefix](models.build(result.config)))
    known = {"zero_share": "stem.pool", "hoyer": "stem.pool", "firing_rate": "stem.neuron"}
    assert known.get(prefix.split("/")[1], "stem.conv") in named


def test_every_family_is_tested() -> None:
    assert FAMILIES.keys() == {PER_ATTACK, PER_CHECK, *LAYERS}


def test_an_ann_has_no_firing_rate() -> None:
    ann = evaluate(TrialConfig.from_flat({**TINY, "neuron.name": "relu"}))
    assert set(OBJECTIVES) - set(ann.metrics) == {"activity/firing_rate", "activity/silent_share"}
    assert all(math.isfinite(value) for value in ann.metrics.values())


def test_direction() -> None:
    for metric in (
        "robust_accuracy/pgd",
        "gradient_sparsity/zero_share/stem.pool",
        "gradient_sparsity/hoyer/stem.conv",
    ):
        assert direction(metric) == "maximize"
    for metric in ("gradient_sparsity/weights", "gradient_sparsity/weights/head", "gradient_sparsity/hoyer"):
        assert direction(metric) == "maximize"
    for metric in ("gradient_sparsity/l1", "time/train_s", "time/latency_ms", "activity/firing_rate/stem.neuron"):
        assert direction(metric) == "minimize"
    for metric in ("energy_pj", "synops", "macs", "acs", "parameters", "firing_rate", "silent_share"):
        assert direction(f"activity/{metric}") == "minimize"
    with pytest.raises(UnknownName, match=r"did you mean gradient_sparsity/gini\?"):
        direction("gradient_sparsity/ginni")


def test_row(result: Result) -> None:
    row = result.row("t7")
    head, tail = ["trial_id", "status"], ["audit", "audit_checks", "hardware", "epochs", "warnings", "cause"]
    assert list(row) == [*head, *TrialConfig.keys(), *result.metrics, *tail]
    assert (row["trial_id"], row["status"], row["epochs"], row["cause"]) == ("t7", result.status, 1, "")
    assert row["warnings"] == list(result.warnings)
    assert row["audit"] == result.verdict != ""
    assert row["audit_checks"] == [str(check) for check in result.checks]
    assert row["audit/large_eps"] == {check.name: check.value for check in result.checks}["large_eps"]
    assert row["model.width"] == 0.05
    assert row["robust_accuracy"] == result.robust_accuracy


def test_a_check_in_words() -> None:
    check = Check(name="a", verdict="suspect", value=0.25, threshold=0.05, source="who", about="what")
    assert str(check) == "a: suspect (0.25, threshold 0.05): what [who]"
    assert str(check.model_copy(update={"verdict": "not run", "value": None})) == "a: not run: what [who]"


def test_shortcuts(result: Result) -> None:
    names = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
    assert [getattr(result, name) for name in names] == [result.metrics[name] for name in names]


def test_json_and_back(result: Result) -> None:
    """As the sweep sends it between processes: floats keep every bit."""
    assert Result.model_validate_json(result.model_dump_json()) == result
    failed = Result(status="failed", config=result.config, cause="Diverged: the loss", epochs=2, warnings=("a", "b"))
    assert Result.model_validate_json(failed.model_dump_json()) == failed


def test_a_trial_on_one_sample_has_finite_figures() -> None:
    """JSON has no NaN: an interval that cannot be known would be lost on its way."""
    one = evaluate(TrialConfig.from_flat({**TINY, "attack.samples": 1, "train.epochs": 1}))
    assert all(math.isfinite(value) for value in one.metrics.values())
    assert (one.metrics["gradient_sparsity/low"], one.metrics["gradient_sparsity/high"]) == (0, 1)
    assert Result.model_validate_json(one.model_dump_json()) == one


def test_frozen_and_closed(result: Result) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        result.status = "failed"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Result(status="failed", config=result.config, why="?")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="status"):
        Result(status="done", config=result.config)  # type: ignore[arg-type]
