"""The threat: which inputs an attacker may choose, and how a step, a start and a projection look there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from snnsweep.config import ThreatConfig
from snnsweep.errors import UserError, nearest

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]
ROUNDING = 1e-6  # of float32 near 1, when a point is tested for being in the ball


@dataclass(frozen=True)
class Threat:
    """What the attacker may do: move the input by at most `eps`, inside [0, 1].

    Attributes:
        eps: radius in units of the pixel range.
        norm: `linf` (no element moves further than eps) or `l2` (the Euclidean length of a sample's whole change).
        space: `pixel` (the image [N, C, H, W] or the event frames [N, T, C, H, W], through the encoder) or `encoded`
            ([T, N, C, H, W]).

    Raises:
        UserError: another norm.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("linf", "l2")

    eps: float
    norm: str = "linf"
    space: str = "pixel"

    def __post_init__(self) -> None:
        if self.norm not in self.NORMS:
            raise UserError(f"unknown norm {self.norm!r}; {nearest(self.norm, self.NORMS)}; set threat.norm")

    @classmethod
    def of(cls, config: ThreatConfig) -> "Threat":
        return cls(eps=config.eps, norm=config.norm, space=config.space)

    @property
    def sample_dim(self) -> int:
        """The dimension of an input that counts samples."""
        return 0 if self.space == "pixel" else 1

    def project(self, adv: Tensor, x: Tensor) -> Tensor:
        """The nearest point of the ball around `x`, cut with [0, 1]; x is in [0, 1]."""
        if self.norm == "linf":
            return torch.minimum(torch.maximum(adv, x - self.eps), x + self.eps).clamp(0, 1)
        shrink = _shrink(self.rows(adv - x).double(), self.rows(x).double(), self.eps).to(x.dtype)
        return (x + self.spread(shrink, x) * (adv - x)).clamp(0, 1)

    def step(self, direction: Tensor, size: float | Tensor) -> Tensor:
        """The change of length `size` that goes furthest along `direction`, sample by sample; 0 where that is 0.

        Args:
            direction: a gradient, of an input's shape.
            size: in the threat's norm; a number, or one for each sample, [N].
        """
        if isinstance(size, Tensor):
            size = self.spread(size, direction)
        return size * (direction.sign() if self.norm == "linf" else self._unit(direction))

    def random_start(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """A uniform point of the ball, cut with [0, 1]. The draw depends on `rng` alone, not on x's device.

        This and every other draw goes sample by sample, so that a sample's does not depend on the batch's size.
        """
        if self.norm == "linf":
            return self.project(x + (2 * self._drawn(x, _uniform, rng) - 1) * self.eps, x)
        shares: list[Tensor] = []

        def draw(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
            noise = _normal(shape, rng)
            shares.append(_uniform((), rng))
            return noise

        noise, n = self._drawn(x, draw, rng), self.rows(x).shape[1]
        radius = self.eps * x.new_tensor(shares) ** (1 / n)  # the volume within r grows as r^n
        return self.project(x + self.step(noise, radius), x)

    def stretched_start(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """A uniform direction as far as the ball goes (`linf`: until its furthest element is at eps), cut with [0, 1].

        Where APGD and SA-PGD begin, in their authors' code.
        """
        if self.norm == "l2":
            return self.random_edge(x, rng)
        return self.project(x + self.eps * self._scaled(2 * self._drawn(x, _uniform, rng) - 1), x)

    def random_edge(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """A uniform point among the ball's farthest, its corners (`linf`) or its sphere (`l2`), cut with [0, 1]."""
        return self.project(x + self.step(self.gaussian(x, rng), self.eps), x)

    def gaussian(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Standard normal noise of x's shape, on its device, from `rng` alone."""
        return self._drawn(x, _normal, rng)

    def _drawn(self, x: Tensor, draw: Draw, rng: torch.Generator) -> Tensor:
        shape = (*x.shape[: self.sample_dim], *x.shape[self.sample_dim + 1 :])
        drawn = [draw(shape, rng) for _ in range(x.shape[self.sample_dim])]
        return torch.stack(drawn, self.sample_dim).to(x) if drawn else torch.zeros_like(x)

    def allows(self, adv: Tensor, x: Tensor) -> Tensor:
        """Per sample, whether `adv` is in the ball and in [0, 1]: bool [N]."""
        change = self.rows(adv - x)
        far = change.abs().amax(1) if self.norm == "linf" else change.double().norm(dim=1)
        rows = self.rows(adv)
        return (far <= self.eps + ROUNDING) & ((rows >= 0) & (rows <= 1)).all(1)

    def rows(self, inputs: Tensor) -> Tensor:
        """All elements of each sample: [N, n]."""
        return inputs.movedim(self.sample_dim, 0).flatten(1)

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """One value for each sample [N], in a shape that goes with `like`, an input."""
        shape = [1] * like.dim()
        shape[self.sample_dim] = -1
        return values.view(shape)

    def pick(self, mask: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
        """Per sample: `chosen` where mask [N] holds, else `other`."""
        return torch.where(self.spread(mask, chosen), chosen, other)

    def take(self, inputs: Tensor, samples: Tensor) -> Tensor:
        """The inputs of these samples alone, by their indices [k]."""
        return inputs.index_select(self.sample_dim, samples)

    def mean_scaled(self, direction: Tensor) -> Tensor:
        """Each sample over the mean size of its elements; 0 stays 0."""
        scaled = self._scaled(direction)
        mean = self.spread(self.rows(scaled).abs().mean(1), direction)
        return torch.where(mean > 0, scaled / mean, 0.0)

    def _scaled(self, direction: Tensor) -> Tensor:
        """Each sample over its largest element, so that squares of tiny gradients do not underflow; 0 stays 0."""
        top = self.spread(self.rows(direction).abs().amax(1), direction)
        return torch.where(top > 0, direction / top, 0.0)

    def _unit(self, direction: Tensor) -> Tensor:
        scaled = self._scaled(direction)
        length = self.spread(self.rows(scaled).norm(dim=1), direction)
        return torch.where(length > 0, scaled / length, 0.0)


def _uniform(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng, device=rng.device)


def _normal(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device)


def _shrink(change: Tensor, x: Tensor, eps: float) -> Tensor:
    """The largest s in [0, 1] with |clip(x + s change, 0, 1) - x|_2 <= eps, for rows [N, n]: [N].

    That point is the nearest one of ball and box: their multipliers leave each element where it is on the way to x,
    or at its side of the box. As s grows, element after element reaches the box, at s = room / |change|; between two
    such s the squared length is a constant plus s^2 times what still moves.
    """
    size = change.abs()
    room = torch.where(change > 0, 1 - x, x).where(size > 0, 0.0)
    reached, order = (room / size).where(size > 0, 0.0).sort(1)
    stopped = room.gather(1, order).square().cumsum(1)
    moving = size.gather(1, order).square()
    rest = moving.flip(1).cumsum(1).flip(1)  # of the elements from here on
    before = torch.cat([torch.zeros_like(stopped[:, :1]), stopped[:, :-1]], 1)
    beyond = before + reached.square() * rest >= eps**2
    first = beyond.to(torch.uint8).argmax(1, keepdim=True)
    share = ((eps**2 - before.gather(1, first)) / rest.gather(1, first)).sqrt().squeeze(1)
    return torch.where(beyond.any(1), share.nan_to_num(0.0).clamp(max=1), 1.0)  # 0 / 0: eps 0 and nothing moves
