"""How much memory a trial takes, as `check` says it; a GPU's part of it has not run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from snnsweep.config import TrialConfig
from snnsweep.evaluation import Evaluation
from snnsweep.sweep import estimate, footprint
from snnsweep.terminal import out
from snnsweep.terminal_cost import show_cost

MIB = 2**20
CPU = torch.device("cpu")
SMALL = {"model.depth": 10, "model.width": 0.125, "encoder.time_steps": 2, "train.epochs": 1, "device": "cpu"}


def config(**own: object) -> TrialConfig:
    return TrialConfig.from_flat({**SMALL, **{key.replace("__", "."): value for key, value in own.items()}})


def grown(run: Callable[[], object]) -> int:
    found = footprint.growth(run, CPU)
    if found is None:
        pytest.skip("this system does not tell a process's memory")
    return found


def test_what_was_freed_before_is_counted_again() -> None:
    """Blocks of the size that the C library keeps for itself when they are freed."""

    def many() -> None:
        held = [torch.ones(16 * 1024) for _ in range(1024)]
        assert len(held) == 1024

    for _ in range(3):
        assert 0.9 * 64 * MIB < grown(many) < 128 * MIB
    assert grown(lambda: None) < 16 * MIB


def test_a_step_takes_what_it_keeps_for_its_backward_pass() -> None:
    trial, saved = Evaluation(config(encoder__time_steps=8, model__width=0.5)), dict[int, int]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        footprint.train(trial, 64)
    assert sum(saved.values()) > 30 * MIB
    assert 0.8 * sum(saved.values()) < grown(lambda: footprint.train(trial, 64)) < 8 * sum(saved.values())


def test_what_lies_there_between_two_steps_by_hand() -> None:
    trial = Evaluation(config(data__subset=40))
    weights = list(trial.model.parameters())
    numbers, buffers = (sum(t.numel() * t.element_size() for t in ts) for ts in (weights, trial.model.buffers()))
    images = 64 * (40 + 144 + 359) + 8 * (40 + 144 + 359)  # of digits: uint8 pixels and int64 labels
    assert footprint.at_rest(trial) == numbers + buffers + images
    footprint.train(trial, 8)
    adam = 4 * numbers + 4 * len(weights)  # weight, gradient, two moments; a count of steps
    assert footprint.at_rest(trial) == adam + buffers + images


@pytest.mark.parametrize(("weighed", "images"), [(8, 8), (64, 64)])
def test_fewer_images_are_scaled_up(weighed: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    for name in ("train", "attack"):
        monkeypatch.setattr(footprint, name, lambda trial, images, name=name: seen.append((name, images)))

    def growth(run: Callable[[], object], device: torch.device) -> int:
        run()
        return 5_000 + 100 * seen[-1][1]

    monkeypatch.setattr(footprint, "growth", growth)
    monkeypatch.setattr(footprint, "at_rest", lambda trial: 1_000_000)
    monkeypatch.setattr(estimate, "WEIGHED", weighed)
    monkeypatch.setattr(estimate, "_affordable", lambda trial: 2)
    found = estimate.weigh(config(attack__samples=40), Path())
    assert found.images == images
    assert (found.train_bytes, found.attack_bytes) == (1_000_000 + 5_000 + 6_400, 1_000_000 + 5_000 + 4_000)
    assert max(seen) == ("train", images)


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(footprint, "PROCESS", tmp_path / "none")
    found = estimate.weigh(config(data__subset=16, attack__samples=4), Path())
    assert (found.train_bytes, found.attack_bytes) == (None, None)
    report = {"question": "", "objectives": {}, "variants": [], "sampled": 0, "hardware": "", "trials": 1}
    with out.capture() as shown:
        show_cost(report | {"memory": vars(found), "worker_hours": {"low": 1, "median": 1, "high": 1}})
    assert "memory of a trial: not measured" in shown.get()
