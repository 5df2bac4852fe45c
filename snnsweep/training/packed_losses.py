"""The losses of `training.losses`, for all members of a pack at once.

`loss(steps, y, configs) -> [K]` of the logits of all time steps, [T, N, K, classes], and labels y [K, N].
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy as _cross_entropy

from snnsweep.config import TrialConfig

Loss = Callable[[Tensor, Tensor, Sequence[TrialConfig]], Tensor]


def cross_entropy(steps: Tensor, y: Tensor, configs: Sequence[TrialConfig]) -> Tensor:
    """Cross-entropy of the logits' mean over time."""
    return _each(steps.mean(0), y).mean(0)


def tet(steps: Tensor, y: Tensor, configs: Sequence[TrialConfig]) -> Tensor:
    """Temporal efficient training, with each member's own lambda and threshold."""
    weight = steps.new_tensor([config.train.tet_lambda for config in configs])
    threshold = steps.new_tensor([config.neuron.v_threshold for config in configs])
    each = _each(steps.flatten(0, 1), y.repeat(1, len(steps))).mean(0)
    pull = (steps - threshold[:, None]).square().mean((0, 1, 3))
    return (1 - weight) * each + weight * pull


def _each(logits: Tensor, y: Tensor) -> Tensor:
    """Of each sample, [N, K], of logits [N, K, classes] and y [K, N]."""
    return _cross_entropy(logits.flatten(0, 1), y.T.flatten(), reduction="none").unflatten(0, logits.shape[:2])


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "tet": tet}
