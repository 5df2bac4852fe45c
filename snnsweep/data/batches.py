"""Training batches: random order and augmentation, on the split's device."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from snnsweep.data.splits import Split


class Draws(NamedTuple):
    """What chance decides of an epoch, each int64 or bool [N] of N places: the image, whether it is mirrored, its crop.

    All is drawn whatever the augmentation, so that one seed gives one order of images.
    """

    order: Tensor
    mirrored: Tensor
    top: Tensor
    left: Tensor

    @classmethod
    def of(cls, split: Split, rng: torch.Generator) -> "Draws":
        """Args:
        rng: a generator on the CPU whatever the split's device, so that every device sees the same images.
        """
        count, (height, width), device = len(split), split.x.shape[-2:], split.x.device
        order, mirrored = torch.randperm(count, generator=rng), torch.rand(count, generator=rng) < 0.5
        top, left = (torch.randint(2 * (side // 8) + 1, (count,), generator=rng) for side in (height, width))
        return cls(*(drawn.to(device) for drawn in (order, mirrored, top, left)))


def batches(split: Split, batch_size: int, rng: torch.Generator, augment: str) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order; augmentation runs on the split's device, a batch at a time.

    A last batch of a single image is left out (batch normalisation over one 1x1 map has no variance), unless
    it is the only one or `batch_size` is 1.

    Args:
        rng: as in `Draws.of`.
        augment: `none`, `flip` (horizontally, with probability 1/2), `crop` (see `crop`) or `flip+crop`.

    Yields:
        x float32 [n, C, H, W], or [n, T, C, H, W] of event frames, in [0, 1] and y int64 [n].
    """
    for x, y in batches_of_many(split, batch_size, [rng], augment):
        yield x[0], y[0]


def batches_of_many(
    split: Split, batch_size: int, rngs: Sequence[torch.Generator], augment: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch for each of K generators, side by side: entry k of every batch is what `batches` gives for rngs[k].

    Yields:
        x [K, n, ...] and y [K, n], otherwise as in `batches`.
    """
    count = len(split)
    draws = Draws(*map(torch.stack, zip(*(Draws.of(split, rng) for rng in rngs), strict=True)))
    single = count > 1 and count % batch_size == 1
    for start in range(0, count - single, batch_size):
        of_batch = Draws(*(drawn[:, start : start + batch_size].flatten() for drawn in draws))
        x = split.x[of_batch.order]
        if "flip" in augment:
            x = flip(x, of_batch.mirrored)
        if "crop" in augment:
            x = crop(x, of_batch.top, of_batch.left)
        each = (len(rngs), -1)
        yield (x.float() / 255).unflatten(0, each), split.y[of_batch.order].unflatten(0, each)


def flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """x [N, ..., H, W] with the samples where `mirrored` [N] is true turned left to right, all frames of them."""
    return torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


def crop(x: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Pad-and-crop: zeros of side // 8 pixels around each image (4 for 32x32), cut back to the old size.

    Args:
        x: [N, ..., H, W]; all frames of a sample are cut alike.
        top, left: int64 [N], where each window begins, in 0 .. 2 (side // 8); side // 8 is the unmoved image.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, [width // 8, width // 8, height // 8, height // 8])
    windows = padded.unfold(-2, height, 1).unfold(-2, width, 1)  # the first one puts a dimension behind the width
    return windows[torch.arange(len(x), device=x.device), ..., top, left, :, :]
