"""An embedded MLflow that the tests share."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from snnsweep.tracking.mlflow import Tracker


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A database and an artifact folder; making MLflow's tables takes seconds, so that the tests share them."""
    folder = tmp_path_factory.mktemp("sweeps")
    return f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"


@pytest.fixture
def client(embedded: tuple[str, Path]) -> MlflowClient:
    return MlflowClient(tracking_uri=embedded[0])


@pytest.fixture
def tracker(embedded: tuple[str, Path], request: pytest.FixtureRequest) -> Tracker:
    tracker = Tracker(embedded[0], request.node.name, embedded[1], warn=pytest.fail)
    tracker.connect()
    return tracker
