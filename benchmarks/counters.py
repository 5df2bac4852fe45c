"""What does not depend on how busy a machine is, and how to time what does.

Dispatches are the tensor operations that torch carries out, views and bare allocations not counted: on a GPU each is a
kernel launch at the least. Saved bytes are what a forward pass keeps for the backward pass.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

_ALLOCATES = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func._schema.returns
        view = bool(returned) and returned[0].alias_info is not None and not returned[0].alias_info.is_write
        self.operations += not view and func._schema.name.removeprefix("aten::") not in _ALLOCATES
        return func(*args, **(kwargs or {}))


def dispatches(run: Callable[[], Any]) -> int:
    """Tensor operations of one call, backward passes within it included."""
    with _Count() as count:
        run()
    return count.operations


def saved_bytes(forward: Callable[[], Any]) -> int:
    """Bytes that the graph of what `forward` returns keeps for a backward pass, each storage once, no parameters."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()  # the graph, and with it every storage, lives until the bytes are counted
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def paired(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of this process for each run in each round; the order turns round from one to the next."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in list(runs)[:: 1 if i % 2 == 0 else -1]:
            start = time.process_time()
            runs[name]()
            found[name].append(time.process_time() - start)
    return found


def ratio(peer: list[float], ours: list[float]) -> tuple[float, float, float]:
    """Median of the rounds' ratios peer / ours, with their quartiles (of fewer than four rounds, the extremes)."""
    each = sorted(a / b for a, b in zip(peer, ours, strict=True))
    low, _, high = quantiles(each, n=4) if len(each) > 3 else (each[0], 0.0, each[-1])
    return median(each), low, high


def geometric_mean(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).log().mean().exp())
