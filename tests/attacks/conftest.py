"""A tiny spiking network, trained on scikit-learn's digits, for the attacks to work on."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from snnsweep.config import TrialConfig
from snnsweep.evaluation import Evaluation
from snnsweep.models import SNN


class Trained(NamedTuple):
    """A model in eval mode, with validation images and labels."""

    model: SNN
    x: Tensor
    y: Tensor
    config: TrialConfig


@pytest.fixture(scope="session")
def trained() -> Trained:
    config = TrialConfig.from_flat(
        {
            "data.batch_size": 32,
            "encoder.time_steps": 2,
            "model.depth": 10,
            "model.width": 0.125,
            "train.epochs": 3,
            "train.lr": 1e-2,
        }
    )
    trial = Evaluation(config)
    while not trial.trained:
        trial.epoch()
    split = trial.data.validation
    return Trained(trial.model.eval(), split.images(), split.y, config)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)
