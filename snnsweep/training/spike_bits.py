"""Spikes kept for the backward pass as bits, and sums of spikes as bytes; both come back bit for bit."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

GATHER = 0x0102040810204080  # times a word of 8 bytes, each 0 or 1: these as the bits of its top byte
SPREAD = 0x0101010101010101  # times a byte: 8 copies of it
EACH = 0x8040201008040201 - (1 << 64)  # bit i of copy i
LEAST = 4096  # elements below which there is nothing to gain
LOOK = 64  # elements that tell spikes from currents, nearly always


class Packed(NamedTuple):
    """A tensor of whole numbers from 0 to 255: `kept` has 8 elements a byte where these are 0 and 1, else one."""

    kept: Tensor
    bits: bool
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


def as_bits() -> AbstractContextManager[Any]:
    """Inside, what autograd keeps and is spikes, or sums of spikes, is kept packed; gradients are the same bit for bit.

    Values tell: a tensor with any other one stays as it is. On a GPU looking at them waits for the device.
    """
    return saved_tensors_hooks(pack, unpack)


def pack(tensor: Tensor) -> Tensor | Packed:
    """The tensor, or what `unpack` makes it from."""
    if isinstance(tensor, nn.Parameter) or not tensor.is_floating_point() or tensor.numel() < LEAST:
        return tensor
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        return tensor  # equal steps, which are kept once
    if _bytes(tensor[0].reshape(-1)[:LOOK]) is None or (kept := _bytes(tensor)) is None:
        return tensor
    kept = kept.reshape(-1)
    bits = bool(kept.max() <= 1)
    if bits:
        words = nn.functional.pad(kept, (0, -len(kept) % 8)).view(torch.int64)
        kept = (words * GATHER >> 56).to(torch.uint8)
    return Packed(kept, bits, tensor.shape, tensor.stride(), tensor.dtype)


def _bytes(tensor: Tensor) -> Tensor | None:
    small = tensor.detach().to(torch.uint8)
    return small if torch.equal(small.to(tensor.dtype), tensor) else None


def unpack(found: Tensor | Packed) -> Tensor:
    """The tensor that was packed, in its layout."""
    if isinstance(found, Tensor):
        return found
    small = found.kept
    if found.bits:
        small = (small.to(torch.int64) * SPREAD & EACH).view(torch.uint8)[: found.shape.numel()].ne(0)
    whole = torch.empty_strided(found.shape, found.stride, dtype=found.dtype, device=small.device)
    return whole.copy_(small.view(found.shape))
