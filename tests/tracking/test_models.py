"""What is written for MLflow beside runs: models as graphs, and the machine's figures."""

import time
from collections.abc import Mapping
from pathlib import Path

import mlflow.pytorch
import pytest
import torch

from snnsweep import TrialConfig, models
from snnsweep.config import ImageSpec
from snnsweep.tracking.deliver import forget
from snnsweep.tracking.models import save
from snnsweep.tracking.system import watched

AWAKE = {"model.depth": 10, "model.width": 0.125, "encoder.time_steps": 2, "neuron.v_threshold": 0.1}
EVENTS = ImageSpec(2, 12, 12, 3, mean=(0.0, 0.0), std=(1.0, 1.0), frames=True)


@pytest.mark.parametrize(
    ("flat", "spec"),
    [
        ({"data.name": "digits", "neuron.name": "plif", "model.residual": "sew_iand"}, None),
        ({"data.name": "nmnist", "encoder.name": "frames"}, EVENTS),
        ({"data.name": "digits", "encoder.name": "poisson"}, None),
    ],
)
def test_a_saved_model_answers_as_the_network_does(
    flat: dict[str, object], spec: ImageSpec | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    torch.manual_seed(0)
    network = models.build(TrialConfig.from_flat(AWAKE | flat), spec)
    shape = (2, 2, 12, 12) if spec else (1, 8, 8)
    network(torch.rand(32, *shape))  # running statistics of batch norm
    network.eval()
    save(network, torch.rand(2, *shape), tmp_path / "model", {"config.json": "{}"})
    loaded = mlflow.pytorch.load_model(str(tmp_path / "model"))
    x = torch.rand(5, *shape)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = network(x)
        torch.manual_seed(1)
        assert torch.equal(loaded(x), expected)
        assert torch.equal(loaded(x), expected) != network.random  # no state is left, and noise is fresh
    assert len(expected.unique(dim=0)) == 5, "a silent network would prove nothing"
    assert not torch.autograd.grad(loaded(x.requires_grad_()).sum(), x, allow_unused=True)[0]
    twin = models.build(TrialConfig.from_flat(AWAKE | flat), spec).eval()
    twin.load_state_dict(loaded.state_dict())
    torch.manual_seed(1)
    assert torch.equal(twin(x), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model"]


def test_only_a_models_own_folder_is_deleted(tmp_path: Path) -> None:
    for name in ("sweep/models/t0", "sweep/models/t1", "other"):
        (tmp_path / name).mkdir(parents=True)
    for place in ("../other", ".", "..", "", "models/t0"):
        forget(tmp_path / "sweep", {"call": "log_model", "said": {"folder": place}})
    forget(tmp_path / "sweep", {"call": "log_epoch", "said": {"folder": "models/t1"}})
    assert (tmp_path / "other").is_dir()
    assert [file.name for file in (tmp_path / "sweep" / "models").iterdir()] == ["t1"]
    forget(tmp_path / "sweep", {"call": "log_model", "said": {"folder": "models/t1"}})
    assert not (tmp_path / "sweep" / "models").exists()


@pytest.mark.parametrize(("interval_s", "times"), [(0.3, 2), (600.0, 1)])
def test_the_machines_figures_are_said_now_and_then_and_at_the_end(interval_s: float, times: int) -> None:
    said: list[tuple[int, Mapping[str, float]]] = []
    begun = time.monotonic()
    with watched(lambda step, figures: said.append((step, figures)), interval_s):
        while len(said) < times - (interval_s > 60) or time.monotonic() < begun + 1.2:
            sum(range(10_000))
    assert len(said) >= times
    assert all(0 < figures["system/cpu_utilization_percentage"] <= 100 for _, figures in said)
    assert all(abs(step - time.time()) < 120 for step, _ in said)
