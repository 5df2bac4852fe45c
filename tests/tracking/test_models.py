"""What is written for MLflow beside runs: models as graphs, and the machine's figures."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient
from serving import children, free_port, history

from snnsweep import TrialConfig, models
from snnsweep.config import ImageSpec
from snnsweep.tracking.deliver import forget, sync
from snnsweep.tracking.journal import Journal
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.models import save
from snnsweep.tracking.spool import Spool
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


def test_a_model_outlives_an_outage_and_is_there_once(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    """Said while nobody answers, told by `sync`, and told once more."""
    sweep = tracker.start_sweep("s", {"snnsweep.version": "1"}, {}, "")
    tracker.start_trial("t0", "t0", {"depth": 10})
    tracker.end_trial("t0", "finished", {"clean_accuracy": 0.5, "train/loss": 2.0}, [], "", 4, "suspect")
    gone = Tracker(f"http://127.0.0.1:{free_port()}", "e", warn=lambda text: None)
    spool = Spool(tmp_path, gone, sweep, lambda text: None)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    save(network, torch.rand(2, 1, 4, 4), tmp_path / "models" / "t0", {})
    spool.log_model("t0", tmp_path / "models" / "t0", {"audit": "suspect"})
    assert spool.close(0.1) == 1
    later = Spool(tmp_path, gone, sweep, lambda text: None)
    assert later.modelled() == {"t0"}
    later.close(0)
    shutil.copytree(tmp_path / "models" / "t0", tmp_path / "again")

    assert sync(tmp_path, tracker, pytest.fail) == 1
    assert not (tmp_path / "models").exists()
    tracker.log_model("t0", tmp_path / "again", {"audit": "suspect"})
    (model,) = client.search_logged_models([tracker.experiment_id])
    (run,) = children(client, sweep).values()
    assert (model.status, model.source_run_id, model.params) == ("READY", run.info.run_id, {"depth": "10"})
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert {metric.key: metric.value for metric in model.metrics} == {"clean_accuracy": 0.5, "train/loss": 2.0}
    assert all(len(points) == 1 for points in history(client, run).values())
    loaded = mlflow.pytorch.load_model(model.artifact_location)
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(loaded(x), network(x))


def test_a_server_without_models_does_not_hold_up_the_rest(tracker: Tracker, tmp_path: Path) -> None:
    said: list[str] = []
    patient = Tracker(tracker._uri, tracker._experiment, warn=said.append)
    patient.connect()
    patient.start_sweep("s", {}, {}, "")
    patient.start_trial("t0", "t0", {})
    for _ in range(2):
        patient.log_model("t0", tmp_path, {})  # no model lies there, and MLflow answers
    assert ["holds no model" in text for text in said] == [True, True]


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


def test_a_moments_failure_loses_no_model(tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snnsweep.tracking.mlflow._AGAIN_S", (0.01,))
    said: list[str] = []
    patient = Tracker(tracker._uri, tracker._experiment, warn=said.append)
    patient.connect()
    sweep = patient.start_sweep("s", {}, {}, "")
    patient.start_trial("t0", "t0", {})
    network, folder, client = torch.nn.Linear(4, 2).eval(), tmp_path / "models" / "t0", patient._runs.client
    save(network, torch.rand(2, 4), folder, {})
    sends = [True, True, False]  # fails twice: for good, as far as this process knows; then it goes on

    def upload(*given: str) -> None:
        if sends.pop(0):
            raise ConnectionError("503 for a moment")
        type(client).log_model_artifacts(client, *given)

    monkeypatch.setattr(client, "log_model_artifacts", upload)
    for left in (True, False):
        spool = Spool(tmp_path, patient, sweep, said.append)
        spool.end_sweep("FINISHED")  # something is under way when it is asked
        assert spool.modelled() == set()
        spool.log_model("t0", folder, {"pareto": "true"})
        assert spool.close() == 0
        assert folder.is_dir() == left
        (model,) = client.search_logged_models([patient.experiment_id])
        assert (model.status, model.tags.get("pareto")) == (("PENDING", None) if left else ("READY", "true"))
    assert Journal(tmp_path).left == 0
