"""What arithmetic float32 tensors are computed in, on every device.

By default cuDNN rounds the inputs of float32 convolutions to TF32 (10 bits of mantissa in place of 23) without a word.
A spike turns on less: an attack in TF32 would look for another network's mistakes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import backends

Precision = Literal["fp32", "tf32", "bf16"]

# torch has two sets of switches, and a value in the new one ("ieee", "tf32", or "none" for what stands above it) that
# contradicts the old one makes the old one raise wherever it is read. Both are set.
_cudnn, _mkldnn = cast(Any, backends.cudnn), cast(Any, backends.mkldnn)  # their stubs lack the new switches
_GPU: tuple[Any, ...] = (_cudnn.conv, _cudnn.rnn, backends.cuda.matmul)
_CPU: tuple[Any, ...] = (_mkldnn.conv, _mkldnn.matmul)  # may be told to round, too; never is here


@contextmanager
def arithmetic(precision: Precision = "fp32") -> Iterator[None]:
    """Inside, float32 is computed in full, or with `tf32` in TF32 on a GPU that has it; afterwards as before.

    `bf16` is torch.autocast's matter: what stays in float32 under it is computed in full.
    """
    before = [each.fp32_precision for each in (*_GPU, *_CPU)]
    try:
        _set([*["tf32" if precision == "tf32" else "ieee"] * len(_GPU), *["ieee"] * len(_CPU)])
        yield
    finally:
        _set(before)


def _set(values: list[str]) -> None:
    convolutions, _, products, _, on_cpu = values
    backends.cudnn.allow_tf32 = convolutions == "tf32"
    coarse = "medium" if on_cpu == "bf16" else "high"
    torch.set_float32_matmul_precision("highest" if products != "tf32" else coarse)
    for each, value in zip((*_GPU, *_CPU), values, strict=True):
        each.fp32_precision = value
