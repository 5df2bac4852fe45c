"""All time steps as one operation, compiled and in torch's operations, against the loop; and what it dispatches."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep import attacks, doctor_machine, models, neurons
from snnsweep.attacks import Threat, rules
from snnsweep.config import ImageSpec, NeuronConfig, TrialConfig
from snnsweep.neurons import fused, native
from snnsweep.neurons.base import SpikingNeuron
from snnsweep.registry import surrogates

WAYS = ["compiled", "operations", "loop"]
FAMILIES = ["atan", "sigmoid", "triangle", "rectangle", "gaussian"]
compiled = pytest.mark.skipif(native._found()[0] is None, reason=native.about())

CONFIGS = st.builds(
    NeuronConfig,
    name=st.sampled_from(["if", "lif", "plif"]),
    v_threshold=st.floats(0.2, 2.0),
    tau=st.floats(1.05, 5.0),
    reset=st.sampled_from(["hard", "soft"]),
    detach_reset=st.booleans(),
    surrogate=st.sampled_from(FAMILIES),
    alpha=st.floats(0.5, 5.0),
    learn_threshold=st.booleans(),
)


def by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on neurons go this way, those that may."""
    monkeypatch.undo()
    if way == "operations":
        monkeypatch.setattr(native, "takes", lambda x: False)
    if way == "loop":
        monkeypatch.setattr(SpikingNeuron, "_dynamics", lambda self: None)


def outcome(neuron: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaf = x.detach().requires_grad_()
    spikes = neuron(leaf)
    return spikes.detach(), torch.autograd.grad(spikes, [leaf, *neuron.parameters()], upstream)


@given(
    config=CONFIGS,
    time_steps=st.integers(1, 9),
    last=st.integers(1, 40),
    alike=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=80)
def test_spikes_are_the_loops_and_gradients_to_1e_5(
    config: NeuronConfig, time_steps: int, last: int, alike: bool, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = config.v_threshold * (1 + 2 * torch.randn(time_steps, 2, 3, 5, last, generator=rng))
    x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (time_steps, 2))
    x = x[:1].expand_as(x) if alike else x  # as direct coding gives it
    upstream, neuron = torch.randn(x.shape, generator=rng), neurons.build(config, time_steps)
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for way in WAYS:
            by(way, monkeypatch)
            found[way] = outcome(neuron, x, upstream)
    spikes, grads = found.pop("loop")
    for others, other_grads in found.values():
        assert torch.equal(others, spikes)
        for one, other in zip(grads, other_grads, strict=True):
            # Of the layer's largest: a sum over many neurons may be near 0 by chance.
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5 * float(one.abs().max() + upstream.abs().max()))


def test_equal_steps_are_neither_copied_nor_turned_to_another_order() -> None:
    step = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    x = step.expand(4, *step.shape)
    assert native._dense(x, members=1) is x
    spikes = neurons.build(NeuronConfig(name="if"), 4)(x)
    assert spikes[0].stride() == step.stride()
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", ["compiled", "operations"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_currents(way: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last bit of bf16 may round the other way."""
    config = NeuronConfig(name="lif", surrogate=family, reset="soft", detach_reset=False)
    neuron = neurons.build(config, 6)
    x, upstream = (2 * torch.randn(2, 6, 999, generator=torch.Generator().manual_seed(0))).bfloat16()
    by(way, monkeypatch)
    spikes, (grad,) = outcome(neuron, x, upstream)
    by("loop", monkeypatch)
    expected, (expected_grad,) = outcome(neuron, x, upstream)
    assert spikes.dtype == grad.dtype == torch.bfloat16
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(grad, expected_grad, rtol=2**-7, atol=1e-3)
    assert (grad == expected_grad).float().mean() > 0.95


@pytest.mark.parametrize("way", ["compiled", "operations"])
def test_no_current_is_lost_that_is_not_finite(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([[1e30, torch.inf, -torch.inf, torch.nan, -0.0], [1.0, 1.0, torch.inf, 1.0, 2.0], [1.0] * 5])
    neuron = neurons.build(NeuronConfig(name="if"), 3)
    by("loop", monkeypatch)
    expected = neuron(x)
    by(way, monkeypatch)
    assert torch.equal(neuron(x), expected)


@compiled
def test_exponentials_at_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a slope is exactly 0 in torch it is here too: a vanished gradient is told by that."""
    u = torch.cat([torch.linspace(-110, 110, 4001), torch.tensor([-1e30, 1e30, torch.nan])]).unsqueeze(0)
    for family in FAMILIES:
        neuron = neurons.build(NeuronConfig(name="if", v_threshold=1.0, surrogate=family, alpha=1.0), 1)
        by("compiled", monkeypatch)
        _, (slope,) = outcome(neuron, u + 1, torch.ones_like(u))
        expected = surrogates.get(family)((u + 1) - 1, 1.0)
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=2e-7, equal_nan=True)
        zero = (slope == 0) != (expected == 0)
        assert zero.float().mean() < 1e-3  # the last bit before 1 - s or the smallest number rounds to 0


@pytest.mark.parametrize("way", ["compiled", "operations"])
@pytest.mark.parametrize("name", ["if", "lif", "plif"])
def test_a_second_derivative_is_the_loops(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = NeuronConfig(name=name, learn_threshold=True, detach_reset=False, surrogate="sigmoid")
    neuron = neurons.build(config, 4)
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).add_(1).requires_grad_()
    leaves = [x, *neuron.parameters()]

    def second() -> tuple[Tensor, ...]:
        first = torch.autograd.grad((neuron(x) * x.detach()).sum(), leaves, create_graph=True)
        return first + torch.autograd.grad(sum((one**2).sum() for one in first), leaves)

    by("loop", monkeypatch)
    expected = second()
    by(way, monkeypatch)
    for one, other in zip(expected, second(), strict=True):
        assert torch.equal(one, other)  # it is the loop


@pytest.mark.parametrize(
    ("about", "loop"),
    [
        (rules.get("training")(), False),
        (rules.get("surrogate")("gaussian", 3), False),
        (rules.get("second")(), False),
        (rules.get("pool")(), False),
        (rules.get("bptr")(), False),  # its exact pass
        (rules.get("assg")(), True),
        (rules.get("pdsg")(), True),
        (rules.get("hart")(), True),
    ],
)
def test_which_rules_need_the_loop(about: rules.Rule, loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    neuron, calls = neurons.build(NeuronConfig(), 3), []
    monkeypatch.setattr(fused, "spikes", lambda x, *rest: calls.append(1) or x)
    with about(nn.Sequential(neuron)):
        neuron(torch.ones(3, 2, 4))
    assert bool(calls) is not loop


class Slow(neurons.LIF):
    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        return 0.9 * v + 0.1 * x


class Staged(neurons.LIF):
    def surrogate_at(self, t: int, u: Tensor) -> neurons.Surrogate:
        return torch.ones_like


def with_surrogate(surrogate: neurons.Surrogate) -> nn.Module:
    neuron = neurons.build(NeuronConfig(), 3)
    neuron.surrogate = surrogate
    return neuron


@pytest.mark.parametrize(
    ("neuron", "loop"),
    [
        (neurons.LIF(NeuronConfig(), 3), False),
        (Slow(NeuronConfig(), 3), True),
        (Staged(NeuronConfig(), 3), True),
        (neurons.LIF(NeuronConfig(noise=0.1), 3), True),
        (with_surrogate(torch.ones_like), True),
        (with_surrogate(partial(lambda u, alpha: u, alpha=2.0)), True),
        (with_surrogate(partial(neurons.gaussian, alpha=torch.ones(4))), True),
        (with_surrogate(partial(neurons.gaussian, alpha=2)), False),
    ],
)
def test_which_neurons_need_the_loop(neuron: nn.Module, loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(fused, "spikes", lambda x, *rest: calls.append(1) or x)
    neuron(torch.ones(3, 2, 4))
    assert bool(calls) is not loop


def test_a_compiler_sees_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(fused, "spikes", lambda *args: pytest.fail("a compiled kernel cannot be traced"))
    assert neurons.build(NeuronConfig(name="if"), 2)(torch.ones(2, 1)).flatten().tolist() == [1, 1]


@compiled
def test_threads_change_no_bit() -> None:
    config = NeuronConfig(name="plif", learn_threshold=True, reset="soft")
    neuron, threads = neurons.build(config, 4), torch.get_num_threads()
    x, upstream = torch.randn(2, 4, 3 * native_work(), generator=torch.Generator().manual_seed(0))
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(outcome(neuron, x, upstream))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0])
    assert all(map(torch.equal, found[0][1], found[1][1]))


def native_work() -> int:
    """Neurons that give a thread of 4 steps its least work."""
    (shift,) = re.findall(r"LEAST_WORK = 1 << (\d+)", native.SOURCE.read_text())
    return 2 ** int(shift) // 4 + 1


@pytest.fixture
def afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a kernel that has not been looked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._found.cache_clear()
    yield tmp_path / "snnsweep"
    native._found.cache_clear()


@compiled
def test_many_may_build_at_once(afresh: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = {task.result() for task in [pool.submit(native._built) for _ in range(2)]}
    assert set(afresh.iterdir()) == paths
    assert len(paths) == 1
    assert native.about() == f"compiled kernel, {paths.pop()}"
    assert doctor_machine.neurons().found == native.about()


@compiled
def test_a_wrong_build_is_refused(afresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "native.c"
    wrong.write_text(native.SOURCE.read_text().replace("h[j] * (1 - s[j])", "h[j] * (1 + s[j])"))
    monkeypatch.setattr(native, "SOURCE", wrong)
    assert native.about() == "torch's operations, a little slower: what the compiler made is not equal to the loop"
    assert not list(afresh.iterdir())


def _homeless(patch: pytest.MonkeyPatch) -> None:
    patch.delenv("XDG_CACHE_HOME")
    patch.setattr(native.Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))


@pytest.mark.parametrize(
    ("set_up", "reason"),
    [
        (lambda m: m.setattr(native.shutil, "which", lambda name: None), "no C compiler found"),
        (lambda m: m.setattr(native, "FLAGS", ("-no-such-flag",)), "non-zero exit status"),
        (lambda m: m.setenv("XDG_CACHE_HOME", "/dev/null"), "Not a directory"),
        (_homeless, "Could not determine home"),
    ],
)
def test_without_a_build_there_are_torchs_operations(
    set_up: Callable[[pytest.MonkeyPatch], None], reason: str, afresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(monkeypatch)
    assert reason in native.about() or "no C compiler" in native.about()
    assert neurons.build(NeuronConfig(name="if"), 2)(torch.ones(2, 1)).flatten().tolist() == [1, 1]


@pytest.fixture(scope="module")
def counters() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "counters.py"
    spec = importlib.util.spec_from_file_location("counters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SPEC = ImageSpec(1, 8, 8, 10, (0.5,), (0.25,))


def small(time_steps: int, name: str = "lif") -> tuple[nn.Module, Tensor, Tensor]:
    config = TrialConfig.from_flat({"model.width": 0.1, "encoder.time_steps": time_steps, "neuron.name": name})
    torch.manual_seed(0)
    return models.build(config, SPEC), torch.rand(4, 1, 8, 8), torch.arange(4)


@compiled
@pytest.mark.parametrize("name", ["lif", "plif"])
def test_operations_do_not_grow_with_time(name: str, counters: ModuleType) -> None:
    """Of SEW-ResNet-18: 218 for LIF and 258 for PLIF a training pass, and 191 and 211 a PGD step."""
    found = []
    for time_steps in (4, 10):
        model, x, y = small(time_steps, name)

        def train(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            cross_entropy(model(x), y).backward()

        def attack(steps: int, model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            attacks.get("pgd")(steps=steps)(model, x, y, Threat(eps=0.1), torch.Generator().manual_seed(0))

        two, three = (counters.dispatches(partial(attack, steps)) for steps in (2, 3))
        found.append((counters.dispatches(train), three - two))
    assert found[0] == found[1]
    assert found[0][0] <= (222 if name == "lif" else 262)
    assert found[0][1] <= (195 if name == "lif" else 215)


def test_what_is_kept_for_the_backward_pass(counters: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = small(4)

    def kept() -> int:
        return counters.saved_bytes(lambda: cross_entropy(model(x), y), but=counters.parameter)

    whole = kept()
    by("loop", monkeypatch)
    assert whole < 0.8 * kept()
