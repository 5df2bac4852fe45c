"""Counters that no load of the machine disturbs: tensor operations dispatched, bytes kept for the backward pass.

    from counters import dispatches, saved_bytes

Tests use them as gates; times are none.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def dispatches(fn: Callable[[], object]) -> int:
    """Tensor operations that fn() dispatches, its backward passes included; views do not count.

    What a compiled kernel does inside is no dispatch; the allocation of its result is one.
    """
    with _Counting() as counting:
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
