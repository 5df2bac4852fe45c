"""Sparsity of the cross-entropy gradient, at the input and at the input of every leaf layer, in eval mode.

Per sample, with g the gradient at the input, flattened, n elements:
    Hoyer = (sqrt(n) - |g|_1 / |g|_2) / (sqrt(n) - 1)                  (Hoyer, JMLR 2004; 0 flat, 1 one element)
    Gini  = 1 - 2 sum_k |g|_(k) / |g|_1 * (n - k + 1/2) / n, |g| sorted upwards   (Hurley & Rickard, 2009)
A gradient that is zero everywhere has no direction; its Hoyer, Gini and small share count as 0, so that a dead
network does not pass for a sparse one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep.attacks.base import attacked
from snnsweep.models import SNN

SMALL = 1e-3  # of the sample's largest element
TINY = 1e-6  # L2 norm


def hoyer(g: Tensor) -> Tensor:
    """Hoyer sparsity of each row of g [N, n], in [0, 1]."""
    unit = _scaled(g)
    root = unit.shape[1] ** 0.5
    ratio = unit.sum(1) / unit.square().sum(1).sqrt()
    return torch.where(unit.sum(1) > 0, (root - ratio) / (root - 1), 0.0)


def gini(g: Tensor) -> Tensor:
    """Gini index of each row of g [N, n], in [0, 1)."""
    unit = _scaled(g).sort(1).values
    n = unit.shape[1]
    weight = (n - torch.arange(1, n + 1, device=g.device, dtype=unit.dtype) + 0.5) / n
    total = unit.sum(1)
    return torch.where(total > 0, 1 - 2 * (unit * weight).sum(1) / total, 0.0)


def small_share(g: Tensor) -> Tensor:
    """Share of elements below 1e-3 of the row's largest, for each row of g [N, n]."""
    unit = _scaled(g)
    return torch.where(unit.sum(1) > 0, (unit < SMALL).double().mean(1), 0.0)


def _scaled(g: Tensor) -> Tensor:
    """|g| over its row's largest element, in float64: squares of tiny gradients would underflow."""
    size = g.abs().double()
    top = size.amax(1, keepdim=True)
    return size / top.where(top > 0, 1.0)


MEASURES = {
    "hoyer": hoyer,
    "gini": gini,
    "small_share": small_share,
    "l1": lambda g: g.double().abs().sum(1),
    "l2": lambda g: g.double().norm(dim=1),
    "vanished_share": lambda g: (g == 0).all(1).double(),
    "tiny_share": lambda g: (g.double().norm(dim=1) < TINY).double(),
}


def input_gradients(model: SNN, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """d CE / d image and d CE / d encoded input of an `SNN`, per sample, flattened: [N, C*H*W], [N, T*C*H*W].

    As an attack sees them: 0 where the gradient is not finite or does not reach the input.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        encoded = model.encode(x).requires_grad_()
        loss = cross_entropy(model.forward_encoded(encoded), y, reduction="sum")
        found = torch.autograd.grad(loss, (x, encoded), materialize_grads=True)
    pixel, code = (grad.nan_to_num(0.0, 0.0, 0.0) for grad in found)
    return pixel.flatten(1), code.movedim(1, 0).flatten(1)


def vanished(model: SNN, x: Tensor, y: Tensor, space: str, batch: int) -> Tensor:
    """bool [n]: whose gradient at the tensor that the threat perturbs is zero everywhere."""
    found = []
    with attacked(model):
        for part in torch.arange(len(x), device=x.device).split(batch):
            pixel, encoded = input_gradients(model, x[part], y[part])
            found.append(((pixel if space == "pixel" else encoded) == 0).all(1))
    return torch.cat(found)


@contextmanager
def zero_counts(network: nn.Module) -> Iterator[dict[str, list[int]]]:
    """Collects, for the input of each leaf layer, [exact zeros, elements] of the gradient that flows through it."""
    counts: dict[str, list[int]] = {}

    def count(name: str) -> Any:
        def hook(_module: nn.Module, grad_input: tuple[Tensor | None, ...], _grad_output: Any) -> None:
            if grad_input and grad_input[0] is not None:
                seen = counts.setdefault(name, [0, 0])
                seen[0] += int((grad_input[0] == 0).sum())
                seen[1] += grad_input[0].numel()

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if next(module.children(), None) is None]
    handles = [module.register_full_backward_hook(count(name)) for name, module in leaves]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def measure(model: SNN, x: Tensor, y: Tensor, space: str, batch: int) -> dict[str, float]:
    """All measures over x [n, C, H, W], y [n], as means over the samples.

    Args:
        space: the tensor that the threat perturbs, `pixel` or `encoded`; the scale-free measures are taken there.

    Returns:
        "" (Hoyer there), "low" and "high" (its 95 % interval), "n", "pixel" and "encoded" (Hoyer at either),
        the names of MEASURES, "zero_share" (mean over layers) and "zero_share/<layer>".
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in (*MEASURES, "pixel", "encoded")}
    with attacked(model), zero_counts(model.network) as counts:
        for part_x, part_y in zip(x.split(batch), y.split(batch), strict=True):
            pixel, encoded = input_gradients(model, part_x, part_y)
            rows["pixel"].append(hoyer(pixel))
            rows["encoded"].append(hoyer(encoded))
            for name, take in MEASURES.items():
                rows[name].append(take(pixel if space == "pixel" else encoded))
    values = {name: torch.cat(parts) for name, parts in rows.items()}
    found = {name: float(value.mean()) for name, value in values.items()}
    layers = {f"zero_share/{name}": zeros / total for name, (zeros, total) in sorted(counts.items())}
    main = values["hoyer"]
    mean, half = found.pop("hoyer"), 1.96 * float(main.std() / len(main) ** 0.5) if len(main) > 1 else 1.0
    head = {"": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}
    return {**head, "n": float(len(main)), **found, "zero_share": sum(layers.values()) / len(layers), **layers}
