"""What tests of whole sweeps share."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from snnsweep.sweep import drive


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: making its tables takes a second, and the CLI's tests do it."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def storage_in(made_database: Path) -> Callable[[Path], Path]:
    """Makes a folder for sweeps in the one given, with such a database."""

    def make(home: Path) -> Path:
        folder = home / "sweeps"
        folder.mkdir()
        shutil.copy(made_database, folder)
        return folder

    return make


@pytest.fixture(autouse=True, scope="module")
def _no_models() -> Iterator[None]:
    """Exporting the models of a front takes seconds a model; tests/tracking looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive, "log_members", lambda *args: None)
        yield
