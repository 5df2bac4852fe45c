"""Batch norms inside the convolutions before them: fewer operations for almost the same answers."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snnsweep.models.base import BatchNorm2d, Conv2d
from snnsweep.models.norm import Batch, ThresholdDependent

Model = TypeVar("Model", bound=nn.Module)


def folded(model: Model, x: Tensor) -> Model:
    """A copy in eval mode with w s for a convolution's weights w, and b - m s for its bias, s = g / sqrt(v + eps).

    g, b, m and v are the weight, bias, mean and variance of the norm that follows and is left out. Rounding turns a
    spike now and then: what is found with the copy has to be judged by the model. A norm that has a scale for each time
    step (`tebn`) stays, and so does one of your own.

    Args:
        x: an input of the model; one pass over it tells which norm takes the very output of which convolution.
    """
    copy = deepcopy(model).eval()
    for conv, name in _pairs(copy, x):
        norm = copy.get_submodule(name)
        assert isinstance(norm, BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * norm.scale if isinstance(norm, ThresholdDependent) else norm.weight
        with torch.no_grad():
            scale = gain * (norm.running_var + norm.eps).rsqrt()
            bias = 0.0 if conv.bias is None else conv.bias
            conv.weight.mul_(scale.view(-1, 1, 1, 1))
            conv.bias = nn.Parameter(norm.bias + (bias - norm.running_mean) * scale)
        parent, _, own = name.rpartition(".")
        setattr(copy.get_submodule(parent), own, nn.Identity())
    return copy


def _pairs(model: nn.Module, x: Tensor) -> list[tuple[Conv2d, str]]:
    """Each convolution that runs once and feeds one layer alone, a plain norm, with that norm's name."""
    made: list[tuple[Conv2d, Tensor]] = []
    taken: list[tuple[Any, str]] = []

    def takes(name: str) -> Any:
        return lambda _layer, args: taken.append((args[0], name)) if args else None

    hooks = []
    for name, layer in model.named_modules():
        if type(layer) is Conv2d:
            hooks.append(layer.register_forward_hook(lambda conv, _args, out: made.append((conv, out))))
        if not any(True for _ in layer.children()):
            hooks.append(layer.register_forward_pre_hook(takes(name)))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    convs = [conv for conv, _ in made]
    found = [(conv, [name for given, name in taken if given is out]) for conv, out in made if convs.count(conv) == 1]
    plain = (BatchNorm2d, Batch, ThresholdDependent)
    return [
        (conv, names[0]) for conv, names in found if len(names) == 1 and type(model.get_submodule(names[0])) in plain
    ]
