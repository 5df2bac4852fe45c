"""Shared by all tests: real CIFAR-10 images as the data set `cifar10_fixture`, and the folder of the whole sets."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsweep import data

torch.set_num_threads(1)  # results are compared bit for bit, and these tensors are too small to share

CIFAR_FIXTURE = Path(__file__).parent / "fixtures" / "cifar10_140.npz"


@data.register("cifar10_fixture")
class CifarFixture:
    """140 real CIFAR-10 images (fixtures/README.md), whatever the folder."""

    spec = data.get("cifar10").spec

    def read(self, folder: Path) -> data.Arrays:
        with np.load(CIFAR_FIXTURE) as arrays:
            return data.Arrays(**arrays)


@pytest.fixture
def cifar_fixture() -> Path:
    """The file that holds `cifar10_fixture`."""
    return CIFAR_FIXTURE


@pytest.fixture
def cifar_folder() -> Path:
    """The folder of the whole CIFAR-10 and CIFAR-100, for tests marked `cifar`."""
    if not os.environ.get("SNNSWEEP_DATA"):
        pytest.skip("SNNSWEEP_DATA does not name a folder with CIFAR-10 and CIFAR-100")
    return Path(os.environ["SNNSWEEP_DATA"])
