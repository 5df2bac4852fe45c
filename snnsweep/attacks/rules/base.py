"""What rules are made of: a change of modules that is taken back, an exact value with another's gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnsweep.neurons import SpikingNeuron
from snnsweep.registry import rules

Rule = Callable[[nn.Module], AbstractContextManager[None]]
register, get, names = rules.register, rules.get, rules.names

_METHODS = ("forward", "charge", "surrogate_at")


def neurons_of(model: nn.Module) -> list[SpikingNeuron]:
    """The layers of neurons that a spike rule acts on."""
    return [module for module in model.modules() if isinstance(module, SpikingNeuron)]


def changes_nothing(rule: Rule, model: nn.Module) -> bool:
    """Whether gradients under the rule are the model's own, so that it is no second rule there.

    A rule may say it itself (`changes_nothing(model)`); else it counts as a spike rule.
    """
    own = getattr(rule, "changes_nothing", None)
    return bool(own(model)) if own else not neurons_of(model)


def acts_on_spikes(rule: Rule) -> bool:
    """Whether the rule is one for spikes; a rule that is not says `of_spikes = False`."""
    return bool(getattr(rule, "of_spikes", True))


def per_sample(rule: Rule) -> bool:
    """Whether a sample's gradient depends on nothing else in the batch, nor on its place there.

    A rule says so itself, by `per_sample = True`. Of any other one a batch keeps its samples to the end of the attack.
    """
    return bool(getattr(rule, "per_sample", False))


@contextmanager
def ruled(modules: Iterable[nn.Module], change: Callable[[Any], Mapping[str, Any]]) -> Iterator[None]:
    """Inside, each module has the attributes that `change` gives for it; afterwards it is as it was.

    Of two rules on one module the inner one holds alone: what the outer one put there is set aside.

    Args:
        change: module -> `forward`, `charge`, `surrogate_at` or `surrogate` for it, in place of its own.
    """
    modules = list(modules)
    before = [{name: vars(m)[name] for name in (*_METHODS, "surrogate") if name in vars(m)} for m in modules]
    try:
        for module in modules:
            _drop(module, *_METHODS)
            vars(module).update(change(module))
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            _drop(module, *_METHODS, "surrogate")
            vars(module).update(own)


def _drop(module: nn.Module, *attributes: str) -> None:
    for name in attributes:
        vars(module).pop(name, None)


class _Value(torch.autograd.Function):
    # value + (stand_in - stand_in.detach()) would lose the sign of zero, and everything where stand_in is infinite.

    @staticmethod
    def forward(ctx: Any, value: Tensor, stand_in: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def value_of(value: Tensor, stand_in: Tensor) -> Tensor:
    """`value`, bit for bit, whose gradient is that of `stand_in`, a tensor of the same shape and dtype."""
    return _Value.apply(value, stand_in)


@dataclass(frozen=True)
class Together:
    """Several rules at once. Where two act on the same layers the later one decides.

    Attributes:
        rules: entered in this order.
    """

    rules: tuple[Rule, ...]

    @property
    def of_spikes(self) -> bool:
        return any(map(acts_on_spikes, self.rules))

    @property
    def per_sample(self) -> bool:
        return all(map(per_sample, self.rules))

    def changes_nothing(self, model: nn.Module) -> bool:
        return all(changes_nothing(rule, model) for rule in self.rules)

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as entered:
            for rule in self.rules:
                entered.enter_context(rule(model))
            yield


def together(*rules: Rule) -> Together:
    """The rules as one: `together(ASSG(), Pool())`. Where two act on the same layers the later one decides."""
    return Together(rules)
