"""Counters that no load of the machine disturbs, and how to time what it does disturb.

    from counters import dispatches, saved_bytes

Tests use the counters as gates; times are none.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from snnsweep.neurons import native

ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        allocates = func._schema.name.removeprefix("aten::") in ALLOCATIONS
        self.operations += not func.is_view and not allocates
        return func(*args, **(kwargs or {}))

    def counted(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The kernel, each call of which is an operation."""

        def call(*args: Any) -> Any:
            self.operations += 1
            return kernel(*args)

        return call


def dispatches(fn: Callable[[], object]) -> int:
    """Tensor operations that fn() dispatches, its backward passes included: what would be kernel launches on a GPU.

    Views and bare allocations do not count. A call of the compiled kernel of the neurons is one.
    """
    with _Counting() as counting, ExitStack() as watched:
        for name in ("spikes", "gradient"):
            watched.enter_context(patch.object(native, name, counting.counted(getattr(native, name))))
        fn()
    return counting.operations


def saved_bytes(
    fn: Callable[[], object],
    *,
    but: Callable[[Tensor], bool] = lambda tensor: False,
    pack: Callable[[Tensor], Tensor | tuple[Any, ...]] = lambda tensor: tensor,
) -> int:
    """Bytes of the storages that fn() keeps for backward passes, each counted once.

    Args:
        but: tensors that do not count, such as parameters, which are there anyway.
        pack: what is kept in a tensor's place; of a tuple its tensors count.
    """
    kept: dict[int, int] = {}
    held = []  # else the address of a freed storage could come again

    def hold(tensor: Tensor) -> Tensor:
        instead = () if but(tensor) else pack(tensor)
        for one in instead if isinstance(instead, tuple) else (instead,):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
                held.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        fn()
    return sum(kept.values())


def parameter(tensor: Tensor) -> bool:
    """For `saved_bytes(but=...)`: leaves that are learned, and views of them."""
    base = tensor if tensor._base is None else tensor._base
    return isinstance(base, torch.nn.Parameter)


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
