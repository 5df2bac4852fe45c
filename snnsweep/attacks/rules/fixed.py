"""Rules with one surrogate for every neuron, step and sample."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from snnsweep.attacks.rules.base import neurons_of, register, ruled
from snnsweep.neurons import SpikingNeuron
from snnsweep.registry import surrogates


@register("training")
@dataclass(frozen=True)
class Training:
    """The surrogate that the model was trained with."""

    per_sample: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def changes_nothing(self, model: nn.Module) -> bool:
        return True


@register("surrogate")
@dataclass(frozen=True)
class Surrogate:
    """One surrogate family and sharpness in every neuron, whatever the training used.

    Attributes:
        family: a registered surrogate.
        alpha: its sharpness.
    """

    family: str = "atan"
    alpha: float = 2.0
    per_sample: ClassVar[bool] = True

    def changes_nothing(self, model: nn.Module) -> bool:
        """Whether every neuron of the model has this very surrogate."""
        own = surrogates.get(self.family), {"alpha": self.alpha}
        theirs = [neuron.surrogate for neuron in neurons_of(model)]
        return all((getattr(one, "func", None), getattr(one, "keywords", None)) == own for one in theirs)

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return ruled(neurons_of(model), lambda _: {"surrogate": partial(surrogates.get(self.family), alpha=self.alpha)})


@register("second")
@dataclass(frozen=True)
class Second:
    """The rule beside the training surrogate: sigmoid 4, or atan 2 where a neuron has a sigmoid about as wide.

    Both are wide enough to pass a gradient where a narrow surrogate starves it (benchmarks/second_rule.py).
    """

    per_sample: ClassVar[bool] = True

    def changes_nothing(self, model: nn.Module) -> bool:
        return not neurons_of(model)

    def of(self, model: nn.Module) -> Surrogate:
        """Which of the two it is for this model."""
        return ATAN if any(map(_like_sigmoid, neurons_of(model))) else SIGMOID

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return self.of(model)(model)


SIGMOID, ATAN = Surrogate("sigmoid", 4.0), Surrogate("atan", 2.0)


def _like_sigmoid(neuron: SpikingNeuron) -> bool:
    """Within a factor of two."""
    own = getattr(neuron.surrogate, "keywords", {}).get("alpha", 0.0)
    return getattr(neuron.surrogate, "func", None) is surrogates.get("sigmoid") and 2.0 <= own <= 8.0
