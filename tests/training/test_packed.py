"""A pack against its members trained one by one: logits, weights, optimisers, batches; and who may not be packed."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from snnsweep import data, models, neurons
from snnsweep.attacks import Threat
from snnsweep.attacks.gradient import PGD
from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged, UserError
from snnsweep.models import residual
from snnsweep.training import packed_probe
from snnsweep.training.loop import Trainer
from snnsweep.training.packed import Pack, unpackable

TINY: dict[str, Any] = {
    "data.subset": 24,
    "data.batch_size": 8,
    "encoder.time_steps": 2,
    "model.depth": 10,
    "model.width": 0.125,
    "train.epochs": 4,
    "device": "cpu",
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "lif": {},
    "plif, learned thresholds": {"neuron.name": "plif", "neuron.learn_threshold": True, "encoder.name": "phase"},
    "if, soft reset, tdbn": {"neuron.name": "if", "neuron.reset": "soft", "model.norm": "tdbn"},
    "membrane, sgd, tet": {"model.residual": "membrane", "train.optimizer": "sgd", "train.loss": "tet"},
    "vgg, clipped": {"model.name": "vgg", "model.depth": 9, "encoder.name": "latency", "neuron.detach_reset": False},
    "ann": {"neuron.name": "relu", "model.pooling": "stride", "model.residual": "sew_iand"},
}


def config(member: int = 0, **own: Any) -> TrialConfig:
    """The member's own values, all of them different, over TINY."""
    theirs = {
        "seed": member,
        "neuron.v_threshold": 0.6 + 0.15 * member,
        "neuron.tau": 1.5 + 0.3 * member,
        "neuron.alpha": 2.0 + 0.5 * member,
        "train.lr": 0.01 / (member + 1),
        "train.weight_decay": 0.02 * member,
        "train.momentum": (0.9, 0.5, 0.0)[member % 3],
        "train.grad_clip": (None, 0.3, 100.0)[member % 3],
        "train.tet_lambda": 0.1 * member,
        "train.schedule": ("cosine", "constant")[member % 2],
    }
    return TrialConfig.from_flat({**TINY, **theirs, **own})


# In double precision rounding turns no spike in so few steps, and nothing has to hide behind a tolerance.
_to = {dtype: lambda _, given, dtype=dtype: (given[0].to(dtype),) for dtype in (torch.float32, torch.float64)}


def trainer(settings: TrialConfig, dtype: torch.dtype = torch.float32) -> Trainer:
    torch.manual_seed(settings.seed)
    model = models.build(settings).to(dtype)
    model.encoder.register_forward_pre_hook(_to[dtype])
    return Trainer(model, settings, data.load(settings, "cpu").train)


def pair(count: int, dtype: torch.dtype = torch.float32, **own: Any) -> tuple[list[Trainer], list[Trainer]]:
    """The same members twice: to train alone, and to be packed."""
    alone, packed = ([trainer(config(k, **own), dtype) for k in range(count)] for _ in range(2))
    return alone, packed


def batches(trainers: list[Trainer]) -> list[tuple[Tensor, Tensor]]:
    rngs = [torch.Generator().manual_seed(100 + k) for k in range(len(trainers))]
    return list(data.batches_of_many(trainers[0].split, 8, rngs, "none"))


def tensors(one: Trainer) -> dict[str, Tensor]:
    """All of its weights, buffers and optimiser state."""
    found = dict(one.model.state_dict())
    for i, state in enumerate(one.optimizer.state.values()):
        found |= {f"{i}.{name}": value for name, value in state.items() if value is not None}
    return found


@pytest.mark.parametrize("own", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_logits_are_those_of_separate_models(own: dict[str, Any]) -> None:
    """Up to the order in which a convolution sums, which turns no spike in float64."""
    alone, packed = pair(3, torch.float64, **own)
    pack, (x, _) = Pack(packed), batches(alone)[0]
    for mode in (True, False):
        pack.model.train(mode)
        together = pack.model(x)
        apart = torch.stack([one.model.train(mode)(x[k]) for k, one in enumerate(alone)])
        assert together.shape == (3, 8, 10)
        torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("own", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_training_steps_are_those_of_separate_trainers(own: dict[str, Any]) -> None:
    alone, packed = pair(3, torch.float64, **own)
    for one in alone:
        one.model.train()
    pack = Pack(packed)
    for x, y in batches(alone):
        together = pack.step(x, y)
        apart = torch.stack([one.step(x[k], y[k]) for k, one in enumerate(alone)])
        assert torch.allclose(together, apart.to(together), atol=1e-6)
    pack.write_back()
    for one, other in zip(alone, packed, strict=True):
        mine, theirs = tensors(one), tensors(other)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.allclose(mine[name], theirs[name], rtol=1e-9, atol=1e-11), name


def test_a_step_in_bf16_with_spikes_kept_as_bits() -> None:
    own = {"train.precision": "bf16", "train.pack_spikes": True, "train.optimizer": "sgd"}
    alone, packed = pair(2, **own)
    x, y = batches(alone)[0]
    pack = Pack(packed)
    pack.step(x, y)
    pack.write_back()
    for k, one in enumerate(alone):
        one.model.train()
        one.step(x[k], y[k])
        mine, theirs = ({name: t.float() for name, t in tensors(one).items()} for one in (one, packed[k]))
        # Convolutions of another shape round their sums elsewhere, at 8 bits.
        assert all((mine[name] - theirs[name]).norm() <= 0.03 * mine[name].norm() + 1e-6 for name in mine)


def test_epochs_of_members_that_stand_at_different_ones() -> None:
    alone, packed = pair(2, torch.float64)
    for one in (alone[0], packed[0]):
        one.epoch()  # by itself: it is one ahead, and its optimiser has three steps behind it
    pack = Pack(packed)
    for _ in range(2):
        together, apart = pack.epoch(), [one.epoch() for one in alone]
        for mine, theirs in zip(together, apart, strict=True):
            assert isinstance(mine, dict)
            assert mine == pytest.approx(theirs, rel=1e-6)
    assert [one.epochs_done for one in packed] == [3, 2]
    for one, other in zip(alone, packed, strict=True):
        assert torch.equal(one.rng.get_state(), other.rng.get_state())
        assert one.schedule.state_dict() == other.schedule.state_dict()


def test_a_member_that_is_dropped_is_an_ordinary_trainer() -> None:
    alone, packed = pair(3, torch.float64)
    pack = Pack(packed)
    pack.epoch()
    for one in alone:
        one.epoch()
    dropped = pack.drop(1)
    assert pack.trainers == [packed[0], packed[2]]
    fresh = trainer(config(1), torch.float64)
    fresh.load_state_dict(dropped.state_dict())
    together = [pack.epoch()[0], fresh.epoch(), pack.epoch()[1]]
    apart = [alone[0].epoch(), alone[1].epoch(), [alone[2].epoch() for _ in range(2)][1]]
    for mine, theirs in zip(together, apart, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    x, y = fresh.split.images(slice(0, 8)), fresh.split.y[:8]
    found = PGD(2)(dropped.model.eval(), x, y, Threat(eps=0.1), torch.Generator().manual_seed(0))
    assert found.shape == x.shape
    pack.drop(0)
    with pytest.raises(UserError, match="last one"):
        pack.drop(0)


def test_a_member_that_diverges_touches_no_other_one() -> None:
    alone, packed = pair(2)
    torch.nn.init.constant_(next(packed[1].model.parameters()), float("nan"))
    first, second = Pack(packed).epoch()
    assert isinstance(second, Diverged)
    assert first == pytest.approx(alone[0].epoch(), rel=1e-5)
    assert packed[1].epochs_done == 0


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"encoder.time_steps": 3}, "encoder.time_steps: a pack has one for all its members; given 2 and 3"),
        ({"train.optimizer": "sgd"}, "train.optimizer"),
        ({"data.batch_size": 6, "neuron.surrogate": "sigmoid"}, "neuron.surrogate"),
    ],
)
def test_members_that_differ_are_refused(own: dict[str, Any], said: str) -> None:
    mixed = [config(0), config(1, **own)]
    assert any(said in reason for reason in unpackable(mixed))
    assert len(unpackable(mixed)) == len(own)
    with pytest.raises(UserError, match=said):
        Pack([trainer(one) for one in mixed])


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"neuron.name": "psn"}, "network.stem.neuron is a PSN"),
        ({"model.norm": "tebn"}, "is a TemporalEffective"),
        ({"neuron.noise": 0.1}, "draws random numbers"),
        ({"encoder.name": "poisson"}, "encoder is a Poisson that draws random numbers"),
        ({"encoder.name": "rsc", "encoder.sigma": 0.0}, "encoder is a RandomizedSmoothing"),
        ({"train.objective": "trades"}, "train.objective: a pack knows natural alone; given 'trades'"),
    ],
)
def test_parts_that_a_pack_does_not_know(own: dict[str, Any], said: str) -> None:
    before = torch.get_rng_state()
    assert said in " ".join(unpackable([config(0, **own), config(1, **own)]))
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_the_users_own_are_refused() -> None:
    @residual.residuals.register("mine_for_packing")
    class Mine(residual.SewAdd):
        def join(self, shortcut: Tensor, residual: Tensor) -> Tensor:
            return shortcut - residual.mean(2, keepdim=True)  # over the channels: of all members, in a pack

    @neurons.register_surrogate("own_for_packing")
    def own(u: Tensor, alpha: float) -> Tensor:
        return torch.ones_like(u)

    assert "is a Mine" in " ".join(unpackable([config(k, **{"model.residual": "mine_for_packing"}) for k in (0, 1)]))
    found = unpackable([config(k, **{"neuron.surrogate": "own_for_packing"}) for k in (0, 1)])
    assert "with a surrogate of its own" in " ".join(found)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(2, 40),
    size=st.integers(1, 12),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4),
    augment=st.sampled_from(["none", "flip", "crop", "flip+crop"]),
)
def test_every_member_sees_its_own_batches(count: int, size: int, seeds: list[int], augment: str) -> None:
    x = torch.randint(0, 256, (count, 2, 9, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    split = data.Split(x, torch.arange(count))
    together = list(data.batches_of_many(split, size, [torch.Generator().manual_seed(s) for s in seeds], augment))
    for k, seed in enumerate(seeds):
        alone = list(data.batches(split, size, torch.Generator().manual_seed(seed), augment))
        assert len(alone) == len(together)
        for (x_k, y_k), (xs, ys) in zip(alone, together, strict=True):
            assert torch.equal(x_k, xs[k])
            assert torch.equal(y_k, ys[k])


class Counter(TorchDispatchMode):
    """How many operators ran."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(count: int) -> int:
    packed = pair(count)[1]
    pack, (x, y) = Pack(packed), batches(packed)[0]
    pack.step(x, y)
    with Counter() as counter:
        pack.step(x, y)
    return counter.count


def test_a_packs_operators_do_not_grow_with_its_members() -> None:
    alone = trainer(config(1))
    x, y = batches([alone])[0]
    alone.step(x[0], y[0])
    with Counter() as counter:
        alone.step(x[0], y[0])
    assert operators(2) == operators(5)
    assert operators(2) < 2 * counter.count


def test_the_probe_measures_an_architecture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    configs, before = [config(k) for k in range(2)], torch.get_rng_state()
    monkeypatch.setattr(packed_probe, "_measured", {})
    first = packed_probe.speedup(configs, data.load(configs[0], "cpu"))
    assert first > 0
    monkeypatch.setattr(packed_probe, "_measure", lambda *given: pytest.fail("measured again"))
    other_values = [config(k) for k in (2, 3)]
    assert packed_probe.speedup(other_values, data.load(configs[0], "cpu")) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert packed_probe.pays(configs[:1], data.load(configs[0], "cpu")) is False
