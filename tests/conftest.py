"""Shared by all tests: real CIFAR-10 images as the data set `cifar10_fixture`, and the folder of the whole sets."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Ray's own way to guard a cluster, with a token of the tests' and not the developer's; read when Ray is imported.
_TOKEN = Path(tempfile.mkdtemp()) / "token"
_TOKEN.write_text(secrets.token_hex(32))
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_TOKEN), "MLFLOW_DISABLE_TELEMETRY": "true"}
os.environ |= {"RAY_memory_monitor_refresh_ms": "0"}  # it ends workers where others fill the machine

import hypothesis
import numpy as np
import pytest
import torch

from snnsweep import data, registry

# Where nobody looks on, the same examples each time; elsewhere new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")
torch.set_num_threads(1)  # results are compared bit for bit, and these tensors are too small to share

CIFAR_FIXTURE = Path(__file__).parent / "fixtures" / "cifar10_140.npz"


@data.register("cifar10_fixture")
class CifarFixture:
    """140 real CIFAR-10 images (fixtures/README.md), whatever the folder."""

    spec = data.get("cifar10").spec

    def read(self, folder: Path) -> data.Arrays:
        with np.load(CIFAR_FIXTURE) as arrays:
            return data.Arrays(**arrays)


@pytest.fixture(autouse=True, scope="module")
def _own_parts_go_with_their_module() -> Iterator[None]:
    """A space that a test runs registers its parts in this process too."""
    before = {name: {part: known.get(part) for part in known.names()} for name, known in registry.KINDS.items()}
    yield
    for name, parts in before.items():
        registry.KINDS[name]._parts = parts


@pytest.fixture
def cifar_fixture() -> Path:
    """The file that holds `cifar10_fixture`."""
    return CIFAR_FIXTURE


@pytest.fixture
def nmnist_folder() -> Path:
    """The folder that holds nmnist/{Train,Test}, for tests marked `nmnist`."""
    folder = Path(os.environ.get("SNNSWEEP_DATA", ""))
    if not (folder / "nmnist" / "Train").is_dir():
        pytest.skip("SNNSWEEP_DATA does not name a folder with nmnist/{Train,Test}")
    return folder


@pytest.fixture
def cifar_folder() -> Path:
    """The folder of the whole CIFAR-10 and CIFAR-100, for tests marked `cifar`."""
    if not os.environ.get("SNNSWEEP_DATA"):
        pytest.skip("SNNSWEEP_DATA does not name a folder with CIFAR-10 and CIFAR-100")
    return Path(os.environ["SNNSWEEP_DATA"])
