"""Sparsity of the cross-entropy gradient in eval mode: at the input, at the input of every leaf layer, at the weights.

Per sample, with g the gradient there, flattened over all time steps, n elements:
    Hoyer = (sqrt(n) - |g|_1 / |g|_2) / (sqrt(n) - 1)                  (Hoyer, JMLR 2004; 0 flat, 1 one element)
    Gini  = 1 - 2 sum_k |g|_(k) / |g|_1 * (n - k + 1/2) / n, |g| sorted upwards   (Hurley & Rickard, 2009)
A gradient that is zero everywhere has no direction; its Hoyer, Gini and small share count as 0, so that a dead
network does not pass for a sparse one.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep.attacks.base import attacked
from snnsweep.metrics import layers
from snnsweep.models import SNN, Classifier

SMALL = 1e-3  # of the sample's largest element
TINY = 1e-6  # L2 norm
WEIGHT_SAMPLES = 16  # each is a backward pass of its own


def hoyer(g: Tensor) -> Tensor:
    """Hoyer sparsity of each row of g [N, n], in [0, 1]."""
    unit = _scaled(g)
    return _hoyer(unit.sum(1), unit.square().sum(1).sqrt(), unit.shape[1])


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


def _hoyer(l1: Tensor, l2: Tensor, n: int) -> Tensor:
    """Hoyer sparsity by the norms of vectors of n elements; one number alone has none, 0."""
    root = n**0.5
    return torch.where(l2 > 0, (root - l1 / l2) / (root - 1), 0.0) if n > 1 else torch.zeros_like(l1)


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


def input_gradients(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """d CE / d image and d CE / d encoded input of an `SNN`, per sample, flattened: [N, C*H*W], [N, T*C*H*W].

    As an attack sees them: 0 where the gradient is not finite or does not reach the input.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        encoded = model.encode(x).contiguous().requires_grad_()  # a copy: every step has a gradient of its own
        loss = cross_entropy(model.forward_encoded(encoded), y, reduction="sum")
        found = torch.autograd.grad(loss, (x, encoded), materialize_grads=True)
    pixel, code = (grad.nan_to_num(0.0, 0.0, 0.0) for grad in found)
    return pixel.flatten(1), code.movedim(1, 0).flatten(1)


def vanished(model: Classifier, x: Tensor, y: Tensor, space: str, batch: int) -> Tensor:
    """bool [n]: whose gradient at the tensor that the threat perturbs is zero everywhere."""
    found = []
    with attacked(model):
        for part in torch.arange(len(x), device=x.device).split(batch):
            pixel, encoded = input_gradients(model, x[part], y[part])
            found.append(((pixel if space == "pixel" else encoded) == 0).all(1))
    return torch.cat(found)


@dataclass(frozen=True)
class _Sums:
    """What is kept of gradients that are too large to keep, by sample; of two parts it adds up.

    Attributes:
        zeros, elements: exact zeros, and the elements of one sample.
        l1, squares: L1 norm and squared L2 norm in float64; what is not finite counts as 0.
    """

    zeros: Tensor
    elements: int
    l1: Tensor
    squares: Tensor

    @classmethod
    def of(cls, grad: Tensor) -> Self:
        """The sums of a gradient [K, N, ...]: [N]."""
        others, finite = (0, *range(2, grad.dim())), grad.nan_to_num(0.0, 0.0, 0.0)
        l1, l2 = (torch.linalg.vector_norm(finite, order, others, dtype=torch.float64) for order in (1, 2))
        return cls((grad == 0).sum(others), grad.numel() // grad.shape[1], l1, l2.square())

    def __add__(self, other: Self) -> Self:
        parts = self.zeros + other.zeros, self.elements + other.elements, self.l1 + other.l1
        return type(self)(*parts, self.squares + other.squares)

    @property
    def shares(self) -> dict[str, Tensor]:
        """Of each sample the exact-zero share and the Hoyer sparsity."""
        hoyers = _hoyer(self.l1, self.squares.sqrt(), self.elements)
        return {"zero_share": self.zeros.double() / self.elements, "hoyer": hoyers}


@contextmanager
def layer_sums(model: Classifier) -> Iterator[dict[str, _Sums]]:
    """Collects, of one backward pass of an `SNN`, the sums of the gradient at the input of each leaf layer.

    A layer may see [T, N, ...], [T * N, ...] or, step by step, [N, ...]; of another layout the batch is one sample.
    """
    found: dict[str, _Sums] = {}
    sizes: set[tuple[int, ...]] = set()  # (T, N) of each network

    def by_sample(grad: Tensor) -> Tensor:
        if tuple(grad.shape[:2]) in sizes:
            return grad
        samples = {n for t, n in sizes if len(grad) in (t * n, n)}
        return grad.unflatten(0, (-1, samples.pop())) if samples else grad.reshape(-1, 1)

    def hook(name: str) -> Any:
        def collect(_module: nn.Module, grads: tuple[Tensor | None, ...], _outputs: Any) -> None:
            if grads and grads[0] is not None:
                sums = _Sums.of(by_sample(grads[0]))
                found[name] = found[name] + sums if name in found else sums

        return collect

    def see(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        sizes.add(tuple(args[0].shape[:2]))
        return args[0].contiguous(), *args[1:]  # a copy where steps are equal: each has a gradient of its own

    with ExitStack() as hooks:
        for snn in (module for module in model.modules() if isinstance(module, SNN)):
            hooks.enter_context(snn.network.register_forward_pre_hook(see))
        for name, layer in layers.leaves(model).items():
            hooks.enter_context(layer.register_full_backward_hook(hook(name)))
        yield found


def weight_sparsity(model: Classifier, x: Tensor, y: Tensor) -> dict[str, float]:
    """Means over the first 16 samples of x [n, C, H, W], y [n], each with a gradient dCE/dW of its own.

    With d the gradient at a linear layer's output, dCE/dx = W^T d and dCE/dW = d x^T share the zeros of d; thus are
    the sparsities of input and weight gradients tied (Luu et al., arXiv 2509.23762).

    Returns:
        "weights" (Hoyer) and "weights_zero_share" of all convolutions and linear layers as one vector, and of each
        with "/<layer>". Nothing where no such layer is trained; a layer that the answer does not use is left out.
    """
    owned = {name: layer.weight for name, layer in layers.weighted(model).items()}
    chosen = {name: weight for name, weight in owned.items() if weight.requires_grad and weight.is_leaf}
    if not chosen:
        return {}
    rows: dict[str, list[Tensor]] = {}
    with attacked(model), torch.enable_grad():
        for image, label in zip(x[:WEIGHT_SAMPLES].split(1), y[:WEIGHT_SAMPLES].split(1), strict=True):
            loss = cross_entropy(model(image.detach().requires_grad_()), label)  # as for a rule's backward hooks
            grads = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True)
            pairs = zip(chosen, grads, strict=True)
            each = {name: _Sums.of(grad.reshape(-1, 1)) for name, grad in pairs if grad is not None}
            for name, sums in ({"": reduce(add, each.values())} | each if each else {}).items():
                rows.setdefault(f"weights/{name}".rstrip("/"), []).append(sums.shares["hoyer"])
                rows.setdefault(f"weights_zero_share/{name}".rstrip("/"), []).append(sums.shares["zero_share"])
    return _means(rows)


def _means(rows: Mapping[str, list[Tensor]]) -> dict[str, float]:
    return {name: float(torch.cat(parts).mean()) for name, parts in rows.items()}


def measure(model: Classifier, x: Tensor, y: Tensor, space: str, batch: int) -> dict[str, float]:
    """All measures over x [n, C, H, W], y [n], as means over the samples.

    Args:
        space: the tensor that the threat perturbs, `pixel` or `encoded`; the scale-free measures are taken there.

    Returns:
        "" (Hoyer there), "low" and "high" (its 95 % interval), "n", "pixel" and "encoded" (Hoyer at either),
        the names of MEASURES; of the leaf layers' input gradients "zero_share/<layer>" and "hoyer/<layer>", and with
        "zero_share" and "hoyer" their means over layers; what `weight_sparsity` gives.
    """
    rows: dict[str, list[Tensor]] = {name: [] for name in (*MEASURES, "pixel", "encoded")}
    by_layer: dict[str, list[Tensor]] = {}
    with attacked(model):
        for part_x, part_y in zip(x.split(batch), y.split(batch), strict=True):
            with layer_sums(model) as seen:
                pixel, encoded = input_gradients(model, part_x, part_y)
            rows["pixel"].append(hoyer(pixel))
            rows["encoded"].append(hoyer(encoded))
            for name, take in MEASURES.items():
                rows[name].append(take(pixel if space == "pixel" else encoded))
            for layer, sums in sorted(seen.items()):
                for kind, share in sums.shares.items():
                    by_layer.setdefault(f"{kind}/{layer}", []).append(share)
    main, found, each = torch.cat(rows["hoyer"]), _means(rows), _means(by_layer)
    mean, half = found.pop("hoyer"), 1.96 * float(main.std() / len(main) ** 0.5) if len(main) > 1 else 1.0
    head = {"": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half), "n": float(len(main))}
    for kind in ("zero_share", "hoyer"):
        values = [value for name, value in each.items() if name.startswith(f"{kind}/")]
        found[kind] = sum(values) / max(1, len(values))
    return {**head, **found, **each, **weight_sparsity(model, x, y)}
