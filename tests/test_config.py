"""Configs: the flat form, and mistakes that are reported together, once each, under their own key."""

import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from snnsweep import registry
from snnsweep.config import DEFAULTS, AttackConfig, Flat, ThreatConfig, TrialConfig
from snnsweep.errors import ConfigError, Diverged, UnknownName, UserError
from snnsweep.registry import Registry

positive = st.floats(1e-6, 1e6)
VALID: dict[str, st.SearchStrategy[object]] = {
    "data.name": st.sampled_from(["digits", "cifar10", "cifar100", "mnist", "fashion_mnist"]),
    "data.path": st.none(),  # what the sets of the user's own files take alone
    "data.subset": st.none() | st.integers(1, 10**6),
    "data.augment": st.sampled_from(["none", "flip", "crop", "flip+crop"]),
    "data.batch_size": st.integers(1, 4096),
    # what goes with every data set and threat; the others have tests of their own
    "encoder.name": st.sampled_from(["direct", "phase", "poisson", "latency"]),
    "encoder.time_steps": st.integers(1, 64),
    "encoder.phases": st.integers(1, 8),
    "encoder.sigma": st.floats(0, 1),
    "neuron.name": st.sampled_from(registry.neurons.names()),
    "neuron.v_threshold": positive,
    "neuron.learn_threshold": st.booleans(),
    "neuron.tau": st.floats(1, 100, exclude_min=True),
    "neuron.reset": st.sampled_from(["hard", "soft"]),
    "neuron.detach_reset": st.booleans(),
    "neuron.noise": st.floats(0, 1),
    "neuron.surrogate": st.sampled_from(registry.surrogates.names()),
    "neuron.alpha": positive,
    "model.name": st.just("resnet"),
    "model.depth": st.sampled_from([10, 18, 34, 50]),
    "model.width": st.floats(0, 16, exclude_min=True),
    "model.residual": st.sampled_from(registry.residuals.names()),
    "model.norm": st.sampled_from(registry.norms.names()),
    "model.pooling": st.sampled_from(["max", "avg", "stride", "none"]),
    "model.stem": st.sampled_from(["cifar", "imagenet"]),
    "train.objective": st.sampled_from(registry.trainers.names()),
    "train.loss": st.sampled_from(registry.losses.names()),
    "train.tet_lambda": st.floats(0, 1),
    "train.eps": st.floats(0, 1),
    "train.attack_steps": st.integers(1, 100),
    "train.attack_rel_step": positive,
    "train.beta": st.floats(0, 100),
    "train.sr_weight": st.floats(0, 100),
    "train.sr_step": positive,
    "train.rat_weight": st.floats(0, 1),
    "train.epochs": st.integers(1, 1000),
    "train.optimizer": st.sampled_from(["adam", "sgd"]),
    "train.lr": positive,
    "train.momentum": st.floats(0, 1, exclude_max=True),
    "train.weight_decay": st.floats(0, 1),
    "train.schedule": st.sampled_from(["cosine", "constant"]),
    "train.grad_clip": st.none() | positive,
    "train.precision": st.sampled_from(["fp32", "bf16"]),
    "train.pack_spikes": st.booleans(),
    "threat.norm": st.sampled_from(["linf", "l2"]),
    "threat.eps": st.floats(0, 1),
    "threat.space": st.sampled_from(["pixel", "encoded"]),
    "attack.suite": st.sampled_from(registry.suites.names()),
    "attack.samples": st.integers(1, 10**5),
    "seed": st.integers(0, 2**32 - 1),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
}
MISTAKES: Flat = {
    "data.name": "cifar",
    "data.subset": 0,
    "data.augment": "rotate",
    "data.batch_size": 2.5,
    "encoder.name": "fase",
    "encoder.time_steps": 0,
    "encoder.phases": 9,
    "neuron.name": "liff",
    "neuron.v_threshold": -1.0,
    "neuron.tau": 1.0,
    "neuron.reset": None,
    "neuron.detach_reset": "perhaps",
    "neuron.surrogate": "atn",
    "neuron.alpha": math.nan,
    "model.depth": 20,
    "model.width": math.inf,
    "model.residual": "sew_ad",
    "model.pooling": 3,
    "train.objective": "naturel",
    "train.epochs": "ten",
    "train.lr": 0,
    "train.momentum": 1.0,
    "train.weight_decay": [0.1],
    "train.grad_clip": -1,
    "train.precision": "fp16",
    "train.pack_spikes": "some",
    "threat.norm": "l1",
    "threat.eps": "8/0",
    "attack.suite": "quik",
    "attack.samples": {},
    "seed": -1,
    "device": "gpu",
}


def problems(flat: Flat) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_flat(flat)
    return caught.value.problems


def test_the_strategy_covers_every_key() -> None:
    assert list(VALID) == TrialConfig.keys()


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALID))
def test_flat_and_back(flat: Flat) -> None:
    config = TrialConfig.from_flat(flat)
    everything = config.to_flat()
    assert list(everything) == TrialConfig.keys()
    assert everything.items() >= flat.items()
    assert TrialConfig.from_flat(everything) == config
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_text_for_none_and_numbers() -> None:
    """What a command line or a parquet file may hand over."""
    config = TrialConfig.from_flat({"data.subset": "none", "train.grad_clip": "", "train.lr": "3e-3", "seed": "7"})
    assert (config.data.subset, config.train.grad_clip, config.train.lr, config.seed) == (None, None, 3e-3, 7)


@pytest.mark.parametrize(("text", "eps"), [("8/255", 8 / 255), ("1/1", 1.0), ("0.5/2", 0.25), ("0.1", 0.1), (0, 0.0)])
def test_eps_may_be_a_fraction(text: object, eps: float) -> None:
    assert TrialConfig.from_flat({"threat.eps": text}).threat.eps == eps


@pytest.mark.parametrize(
    "eps", [1.5, -0.1, "8/0", "8/", "a/b", "8/255/2", "nan/1", "1/nan", "300/255", math.nan, "", None]
)
def test_eps_outside_the_pixel_range(eps: object) -> None:
    (problem,) = problems({"threat.eps": eps})
    assert problem.startswith("threat.eps: ")


def test_only_an_l2_ball_may_be_wider_than_the_pixel_range() -> None:
    """The longest change of a 3 x 32 x 32 image is sqrt(3072), about 55."""
    wide = TrialConfig.from_flat({"threat.norm": "l2", "threat.eps": 3, "train.eps": "510/255"})
    assert (wide.threat.eps, wide.train.eps) == (3.0, 2.0)
    found = problems({"threat.eps": 3, "train.eps": 1.5, "train.epochs": "ten"})
    assert [problem.partition(": ")[0] for problem in found] == ["train.epochs", "threat.eps", "train.eps"]
    assert found[1].endswith("given 3; allowed: 0 to 1, or threat.norm=l2")


def test_every_mistake_at_once_and_each_once() -> None:
    unknown = {"neuron.v_treshold": 1.0, "sed": 1, "attack": {"suite": "quick"}}
    found = problems({**MISTAKES, **unknown})
    assert sorted(problem.partition(": ")[0] for problem in found) == sorted([*MISTAKES, *unknown])


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1))
def test_a_mistake_is_reported_whatever_else_is_wrong(keys: set[str]) -> None:
    found = problems({key: MISTAKES[key] for key in keys})
    assert {problem.partition(": ")[0] for problem in found} == keys
    assert len(found) == len(keys)


@pytest.mark.parametrize(
    ("key", "given", "near"),
    [
        ("data.name", "cifar-10", "cifar10"),
        ("encoder.name", "fase", "phase"),
        ("neuron.name", "liff", "lif"),
        ("neuron.surrogate", "atn", "atan"),
        ("model.name", "resnett", "resnet"),
        ("model.residual", "membran", "membrane"),
        ("train.objective", "naturel", "natural"),
        ("attack.suite", "quik", "quick"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(key: str, given: str, near: str) -> None:
    (problem,) = problems({key: given})
    assert problem.startswith(f"{key}: unknown")
    assert repr(given) in problem
    assert problem.endswith(f"did you mean {near}?")


def test_an_unknown_key_comes_with_the_nearest() -> None:
    assert problems({"neuron.treshold": 1}) == ("neuron.treshold: unknown key; did you mean neuron.v_threshold?",)


def test_the_message_says_what_was_given_and_what_is_allowed() -> None:
    depth, steps = problems({"model.depth": 20, "encoder.time_steps": 0})[::-1]
    assert depth == "model.depth: resnet is built with depth 10, 18, 19, 34, 50; given 20"
    assert "greater than or equal to 1" in steps
    assert steps.endswith("given 0")


def test_frozen_and_closed() -> None:
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.neuron.tau = 3.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        TrialConfig.model_validate({"neuron": {"threshold": 1.0}})
    with pytest.raises(ValidationError, match="Extra inputs"):
        TrialConfig.model_validate({"neurons": {}})


def test_the_defaults_are_one_thing() -> None:
    assert DEFAULTS == TrialConfig().to_flat() == TrialConfig.from_flat({}).to_flat()
    quick = registry.suites.get(DEFAULTS["attack.suite"])().defaults
    assert DEFAULTS.items() >= quick.items()


TRAIL = {"threat.eps": 6 / 255, "threat.space": "encoded", "attack.samples": 1000}


@pytest.mark.parametrize(
    ("config", "own"),
    [
        (TrialConfig.from_flat({"attack.suite": "trail"}), {}),
        (TrialConfig.from_flat({"attack.suite": "trail", "threat.eps": 0.1}), {"threat.eps": 0.1}),
        (
            TrialConfig.from_flat({"attack.suite": "trail", "attack.samples": 256, "threat.space": "pixel"}),
            {"attack.samples": 256, "threat.space": "pixel"},
        ),
        (TrialConfig(attack=AttackConfig(suite="trail")), {}),
        (TrialConfig(attack=AttackConfig(suite="trail", samples=256)), {"attack.samples": 256}),
        (
            TrialConfig(attack=AttackConfig(suite="trail"), threat=ThreatConfig(eps=8 / 255)),
            {"threat.eps": 8 / 255},
        ),
        (TrialConfig.model_validate({"attack": {"suite": "trail"}, "threat": {"eps": 0}}), {"threat.eps": 0}),
    ],
)
def test_a_suite_brings_its_threat_and_what_is_given_wins(config: TrialConfig, own: Flat) -> None:
    assert config.to_flat() == {**DEFAULTS, "attack.suite": "trail", **TRAIL, **own}


def test_errors_travel_between_processes() -> None:
    mistakes = ConfigError(["a: 1", "b: 2"])
    again = pickle.loads(pickle.dumps(mistakes))  # noqa: S301
    assert (type(again), again.problems, str(again)) == (ConfigError, mistakes.problems, str(mistakes))
    diverged = Diverged(3, "the training loss")
    again = pickle.loads(pickle.dumps(diverged))  # noqa: S301
    assert (type(again), again.epoch, again.what, str(again)) == (Diverged, 3, "the training loss", str(diverged))


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_built_in_name_is_not_given_away(kind: str) -> None:
    parts: Registry = registry.KINDS[kind]
    name = next(n for n in parts.names() if parts.get(n).__module__.startswith("snnsweep."))
    before = parts.get(name)
    with pytest.raises(UserError, match="built in"):
        parts.register(name)(lambda: None)
    assert parts.get(name) is before


@pytest.mark.parametrize("kind", registry.KINDS)
def test_an_unknown_part(kind: str) -> None:
    parts: Registry = registry.KINDS[kind]
    with pytest.raises(UnknownName, match=f"unknown {parts.kind} 'nothing_of_this_name'"):
        parts.get("nothing_of_this_name")


def test_a_part_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in (registry.neurons, registry.datasets, registry.models):
        monkeypatch.setattr(parts, "_parts", dict(parts._parts))

    @registry.neurons.register("mine")
    class First:
        """The first."""

    @registry.neurons.register("mine")
    class Second:
        """The second.

        And more.
        """

    registry.datasets.register("mine")(First)

    @registry.models.register("mine")
    class Shallow:
        depths = (2, 3)

    assert registry.neurons.get("mine") is Second
    assert registry.neurons.about("mine") == "The second."
    own = {"neuron.name": "mine", "data.name": "mine", "model.name": "mine"}
    config = TrialConfig.from_flat({**own, "model.depth": 3})
    assert (config.neuron.name, config.data.name) == ("mine", "mine")
    assert problems(own) == ("model.depth: mine is built with depth 2, 3; given 18",)  # the default does not fit it


@pytest.mark.parametrize("key", DEFAULTS)
def test_typed_takes_each_key_by_itself_as_text_too(key: str) -> None:
    value = DEFAULTS[key]
    assert TrialConfig.typed({key: value}) == {key: value}
    assert TrialConfig.typed({key: str(value)}) == {key: value}


def test_typed_tells_every_mistake_at_once() -> None:
    given = {
        "threat.eps": "8/0",
        "neuron.nam": "lif",
        "encoder.time_steps": "0",
        "train.optimizer": "adam",
        "seed": "x",
    }
    with pytest.raises(ConfigError) as caught:
        TrialConfig.typed(given)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "threat.eps", "neuron.nam", "encoder.time_steps", "seed"
    ]  # fmt: skip
    assert TrialConfig.typed({"threat.eps": "8/255", "train.grad_clip": "none"}) == {
        "threat.eps": 8 / 255, "train.grad_clip": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flat", "found"),
    [
        ({"encoder.name": "frames"}, ["encoder.name: frames is for event data, and digits holds images"]),
        ({"data.name": "nmnist", "encoder.name": "phase"}, ["encoder.name: nmnist is event data"]),
        ({"encoder.name": "rsc", "threat.space": "encoded"}, ["threat.space: the code of rsc leaves [0, 1]"]),
        ({"data.path": "own.npz"}, ["data.path: digits reads no file of yours; given 'own.npz'"]),
        (
            {"encoder.name": "frames", "data.path": "x", "seed": -1, "neuron.name": "lief"},
            ["neuron.name: unknown", "seed: ", "encoder.name: frames is for", "data.path: digits reads"],
        ),
        ({"encoder.name": "fames", "data.name": "nmnist"}, ["encoder.name: unknown encoder 'fames'"]),
    ],
)
def test_parts_that_do_not_go_together_are_told_with_the_other_mistakes(flat: Flat, found: list[str]) -> None:
    told = problems(flat)
    assert len(told) == len(found)
    assert all(text.startswith(start) for text, start in zip(told, found, strict=True))


def test_parts_bring_values_and_what_is_given_wins() -> None:
    assert TrialConfig.from_flat({"data.name": "nmnist"}).encoder.name == "frames"
    assert TrialConfig.from_flat({"model.name": "vgg"}).model.depth == 11
    assert TrialConfig.from_flat({"model.name": "vgg", "model.depth": 16}).model.depth == 16
    trades = TrialConfig.from_flat({"train.objective": "trades", "train.beta": 3})
    assert (trades.train.eps, trades.train.attack_steps, trades.train.beta) == (0.031, 10, 3)
    assert TrialConfig.from_flat(trades.to_flat()) == trades
