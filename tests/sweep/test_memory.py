"""The memory of a trial. The calls to CUDA are replaced: what they return on a real GPU is not shown here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnsweep import evaluate
from snnsweep.config import TrialConfig
from snnsweep.errors import SnnSweepError, UserError
from snnsweep.sweep import footprint, memory
from snnsweep.sweep.cluster import start_here
from snnsweep.sweep.memory import assigned_device, confine, exercise, measured_share, reached, share
from snnsweep.sweep.nodes import Kind
from snnsweep.sweep.space import Space

GIB = 2**30
SMALL = {"model.depth": 10, "model.width": 0.125, "encoder.time_steps": 2, "data.subset": 24, "train.epochs": 1}


# How much of a GPU


@given(st.integers(1, 200 * GIB), st.integers(1, 200 * GIB))
def test_the_trials_that_a_share_lets_in_fit(need: int, total: int) -> None:
    if need > total:
        with pytest.raises(UserError, match=r"needs .* GiB of GPU memory"):
            share(need, total)
        return
    part = share(need, total)
    trials = Kind(1000, 1).fits(1, part) if part < 1 else 1
    assert 0 < part <= 1
    assert part == round(part, 4)
    assert trials == 1 or trials * need <= 0.9 * total
    if trials < 100:  # then Ray's ten-thousandths cost none
        assert (trials + 1) * need > 0.9 * total or trials == 1000


@pytest.mark.parametrize(
    ("need", "total", "expected"), [(10, 100, 0.1111), (30, 100, 0.3333), (45, 100, 0.5), (46, 100, 1), (100, 100, 1)]
)
def test_shares_by_hand(need: int, total: int, expected: float) -> None:
    assert share(need * GIB, total * GIB) == expected


def test_a_trial_that_no_gpu_holds() -> None:
    with pytest.raises(UserError, match=r"needs 25.0 GiB .* smallest GPU has 24.0 GiB; lower data.batch_size"):
        share(25 * GIB, 24 * GIB)


@pytest.mark.parametrize(
    ("gpus", "expected"), [(0, []), (0.25, [(0.25 - 0.5 / 16, 0)]), (0.05, [(0.025, 0)]), (1, [(1, 0)]), (2, [(1, 0)])]
)
def test_a_process_is_held_to_its_part(gpus: float, expected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: calls.append(given))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * GIB))
    confine(gpus)
    assert calls == expected


def test_the_need_is_the_peak_with_what_lies_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In GiB: 24 in all, 15 free at the end, of which torch holds 6 then and held 8 at its peak: 3 are the context."""
    calls: list[Any] = []
    for name, value in {"mem_get_info": (15 * GIB, 24 * GIB), "memory_reserved": 6 * GIB}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: calls.append("read") or 8 * GIB)
    monkeypatch.setattr(memory, "exercise", lambda *given: calls.append(given))
    config = TrialConfig()
    assert memory.need(config, tmp_path) == 11 * GIB
    assert calls == ["reset", (config, tmp_path), "read"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(2 * GIB, 40 * GIB), (4 * GIB, 40 * GIB)], share(4 * GIB, 40 * GIB)),
        ([(2 * GIB, 80 * GIB), (2 * GIB, 16 * GIB)], share(2 * GIB, 16 * GIB)),
        ([(2 * GIB, 40 * GIB), "ValueError: a part of the space that breaks"], share(2 * GIB, 40 * GIB)),
        ([(2 * GIB, 40 * GIB), None], 1.0),
    ],
)
def test_the_most_demanding_answer_decides(answers: list[Any], expected: float) -> None:
    assert memory._agreed(answers) == expected


def test_no_answer_is_a_share() -> None:
    with pytest.raises(UserError, match=r"own; lower data.batch_size, encoder.time_steps"):
        memory._agreed([None])
    with pytest.raises(SnnSweepError, match="no variant could be measured: ValueError: no"):
        memory._agreed([None, "ValueError: no"])


# The largest steps


def batches_seen(run: Callable[[], object]) -> dict[tuple[bool, bool, str], int]:
    """The largest input of a convolution, by whether it trains and keeps a graph, and its weight's shape."""
    seen: dict[tuple[bool, bool, str], int] = {}

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d):
            key = (module.training, torch.is_grad_enabled(), str(tuple(module.weight.shape)))
            seen[key] = max(seen.get(key, 0), inputs[0].numel())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        run()
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    "keys",
    [
        {"attack.samples": 10, "data.batch_size": 8, "threat.space": "encoded", "attack.suite": "trail"},
        {"attack.samples": 6, "data.batch_size": 12, "train.objective": "adversarial", "train.attack_steps": 2},
    ],
)
def test_the_steps_are_as_large_as_a_trials_largest(keys: dict[str, Any], tmp_path: Path) -> None:
    config = TrialConfig.from_flat(SMALL | keys)
    whole = batches_seen(lambda: evaluate(config, tmp_path))
    short = batches_seen(lambda: exercise(config, tmp_path))
    with_graph = {key: size for key, size in whole.items() if key[1]}
    assert with_graph
    assert {key: size for key, size in short.items() if key[1]} == with_graph


def test_every_attack_of_a_suite_is_tried_and_none_for_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(footprint.suites, "run", lambda model, x, y, suite, *rest: tried.append((suite, len(x))))
    measured: list[str] = []
    for module, name in ((footprint.probes, "run"), (footprint.sparsity, "measure"), (footprint.activity, "measure")):
        monkeypatch.setattr(module, name, lambda *given, module=module: measured.append(module.__name__))
    exercise(TrialConfig.from_flat(SMALL | {"attack.suite": "strong", "attack.samples": 50}), tmp_path)
    ((suite, images),) = tried
    assert [name.rpartition(".")[2] for name in measured] == ["probes", "sparsity", "activity"]
    strong = footprint.suites.get("strong")()
    assert images == 50
    assert [(step.label, step.rule, type(step.attack)) for step in suite.steps] == [
        (step.label, step.rule, type(step.attack)) for step in strong.steps
    ]
    counts = [vars(step.attack).get(name, 0) for step in suite.steps for name in ("steps", "queries", "draws")]
    assert max(counts) == 2


def test_the_largest_variants_of_different_memory() -> None:
    flats = [
        {"encoder.time_steps": 2, "neuron.v_threshold": 0.5},
        {"encoder.time_steps": 2, "neuron.v_threshold": 0.9},
        {"encoder.time_steps": 8},
        {"encoder.time_steps": 4, "model.width": 4},
        {"encoder.time_steps": 1},
        {"encoder.time_steps": 1, "model.residual": "spiking"},
        {"encoder.time_steps": 3},
    ]
    found = footprint.largest((TrialConfig.from_flat(flat) for flat in flats), 4)
    assert [(config.encoder.time_steps, config.model.width) for config in found] == [(4, 4), (8, 1), (3, 1), (2, 1)]


# Which device


def test_the_largest_that_the_space_gives_is_reached() -> None:
    """Sixteen random draws meet it once in 3,000 times here; and where it is refused, they are what there is."""
    text = (
        "def space(trial):\n"
        "    steps = trial.suggest_int('encoder.time_steps', 1, 100)\n"
        "    trial.suggest_categorical('data.batch_size', [16, 256, 64])\n"
        "    trial.suggest_float('model.width', 0.125, 2, log=True)\n"
        "    if trial.suggest_categorical('neuron.name', ['lif', 'plif']) == 'lif':\n"
        "        trial.suggest_float('neuron.tau', 1.1, 4.0)\n"
        "    return {'neuron.v_threshold': LIMIT[steps > 99]}\n"
    )
    found = reached(Space("memory_space.py", f"LIMIT = (1.0, 1.0)\n{text}"), 0, {}, {})
    sizes = {(config.encoder.time_steps, config.data.batch_size, config.model.width) for config in found}
    assert (len(found), sizes) == (16, {(100, 256, 2.0)})
    assert len({config.neuron.name for config in found}) == 2
    assert len({config.neuron.tau for config in found}) > 2
    assert reached(Space("memory_space.py", f"LIMIT = (1.0, -1.0)\n{text}"), 0, {}, {}) == []


def test_a_trial_without_a_gpu_is_on_the_cpu_whatever_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert assigned_device(0) == "cpu"


def test_a_gpu_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [3])
    assert assigned_device(0.5) == "cuda"


# Through Ray, on a GPU that is none


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[None]:
    start_here(num_cpus=2, num_gpus=1)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def space() -> Space:
    return Space("memory_space.py", 'STEPS = {"encoder.time_steps": 2}\ndef space(trial): return STEPS\n')


def configs(*steps: int) -> list[TrialConfig]:
    return [TrialConfig.from_flat({"encoder.time_steps": count}) for count in steps]


@pytest.mark.slow
def test_variants_are_measured_on_a_gpu_of_their_own(one_gpu: None, space: Space, tmp_path: Path) -> None:
    def measure(config: TrialConfig, data_dir: Path) -> tuple[int, int]:
        if config.encoder.time_steps == 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert ray.get_gpu_ids() == [0]
        return config.encoder.time_steps * GIB, 40 * GIB

    assert measured_share(space, configs(4), tmp_path, {}, measure) == share(4 * GIB, 40 * GIB)
    with pytest.raises(UserError, match="out of memory on a GPU of their own"):
        measured_share(space, configs(9), tmp_path, {}, measure)


@pytest.mark.slow
def test_a_gpu_that_torch_does_not_see(one_gpu: None) -> None:
    def trial() -> str:
        return assigned_device(1)

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SnnSweepError, match=r"reserves 1 GPU and was given GPU 0 on host .*, where torch .* sees 0"):
        ray.get(ray.remote(num_gpus=1)(trial).remote(), timeout=600)
    with pytest.raises(SnnSweepError, match="was given none"):
        assigned_device(0.5)


def test_no_gpu_is_free(one_gpu: None, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FREE_S", 0.1)
    with pytest.raises(UserError, match="--gpus-per-trial auto: no GPU was free"):
        measured_share(space, configs(2), tmp_path, {}, lambda config, data_dir: (1, 1))
