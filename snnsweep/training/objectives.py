"""Training objectives: `objective(model, x, y, config, rng) -> loss`, a scalar, for a batch of images in [0, 1]."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep.config import TrialConfig
from snnsweep.registry import trainers

register, get, names = trainers.register, trainers.get, trainers.names


@register("natural")
def natural(model: nn.Module, x: Tensor, y: Tensor, config: TrialConfig, rng: torch.Generator) -> Tensor:
    """Cross-entropy of the logits averaged over time, on clean images."""
    return cross_entropy(model(x), y)
