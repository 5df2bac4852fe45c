"""Square: random search by patches, which needs logits alone."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snnsweep.attacks.base import Attack, Oracle, Threat
from snnsweep.attacks.query import Search, stream
from snnsweep.registry import attacks

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of a patch's share, at these queries of 10,000


@attacks.register("square")
@dataclass(frozen=True)
class Square(Attack):
    """Square attack (Andriushchenko et al., 2020, arXiv 1912.00049, algorithms 1 to 3), by the margin.

    It keeps a change of full length in one square after another where that raises the margin. Time steps and
    polarities count as channels: one square at a time, with signs of their own. Defaults as in AutoAttack.

    Attributes:
        queries: points tried, at least 1.
        p_init: a patch's share of the map at the start.
    """

    queries: int = 5000
    p_init: float = 0.8
    per_sample = True

    def propose(self, oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
        maps = _maps(x, threat)
        ball = replace(threat, space="pixel")
        first, moved = (_stripes, _repainted) if threat.norm == "linf" else (_tiles, _shifted)
        search, own = Search(oracle, x, y, threat), stream(rng)
        points = ball.project(maps + first(maps, threat.eps, own), maps)
        for query in range(self.queries):
            if search.over:
                break
            if query:
                change = _maps(search.best, threat) - maps
                side = self.side(query - 1, maps.shape[-2:], threat.norm)
                points = ball.project(maps + moved(change, side, threat.eps, own), maps)
            search.offer(_inputs(points, x, threat))
        return search.best

    def side(self, query: int, size: torch.Size | tuple[int, int], norm: str) -> int:
        """A patch's side in pixels at that query, on maps of that size; in l2 an odd one, at least 3."""
        halvings = sum(int(query / self.queries * 10_000) > at for at in HALVINGS)
        side = round(math.sqrt(self.p_init / 2**halvings * math.prod(size)))
        side = max(side, 1) if norm == "linf" else max(side, 3) // 2 * 2 + 1
        return min(side, *size)


def _maps(inputs: Tensor, threat: Threat) -> Tensor:
    """Any input as [N, K, H, W]: channels, time steps and polarities in one dimension."""
    return inputs.movedim(threat.sample_dim, 0).flatten(1, -3)


def _inputs(maps: Tensor, like: Tensor, threat: Threat) -> Tensor:
    """`_maps` undone."""
    return maps.reshape(like.movedim(threat.sample_dim, 0).shape).movedim(0, threat.sample_dim)


def _signs(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    return (2 * torch.randint(2, shape, generator=rng) - 1).to(like)


def _window(change: Tensor, side: int, rng: torch.Generator) -> tuple[Tensor, slice, slice]:
    """A view of a random square of the maps, and where it lies; the same for all samples of the batch."""
    at = [int(torch.randint(size - side + 1, (), generator=rng)) for size in change.shape[-2:]]
    rows, columns = (slice(start, start + side) for start in at)
    return change[..., rows, columns], rows, columns


def _stripes(maps: Tensor, eps: float, rng: torch.Generator) -> Tensor:
    """Columns of one pixel, each at plus or minus eps."""
    n, channels, _, width = maps.shape
    return (eps * _signs((n, channels, 1, width), maps, rng)).expand_as(maps)


def _repainted(change: Tensor, side: int, eps: float, rng: torch.Generator) -> Tensor:
    """One square of each channel at plus or minus eps, whatever it was."""
    change = change.clone()
    window, _, _ = _window(change, side, rng)
    window.copy_((eps * _signs((*change.shape[:2], 1, 1), change, rng)).expand_as(window))
    return change


def _tiles(maps: Tensor, eps: float, rng: torch.Generator) -> Tensor:
    """Bumps side by side, five along the shorter side, of random signs and of length eps in all."""
    side = max(min(maps.shape[-2:]) // 5, 1)
    high, wide = (size // side for size in maps.shape[-2:])
    signs = _signs((*maps.shape[:2], high, wide), maps, rng)
    change = torch.zeros_like(maps)
    change[..., : high * side, : wide * side] = torch.kron(signs, _bump(side, rng).to(maps))
    return eps * change / change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _shifted(change: Tensor, side: int, eps: float, rng: torch.Generator) -> Tensor:
    """Moves the length of one square, and what eps has left, to another one; that one gets a new bump (equation 2).

    Of each channel its own length in both squares is there to spend, and its share of what is left in square.
    """
    left = (eps**2 - change.flatten(1).square().sum(1)).clamp(min=0).view(-1, 1, 1, 1)
    change = change.clone()
    here, rows, columns = _window(change, side, rng)
    source, from_rows, from_columns = _window(change, side, rng)
    both = torch.zeros_like(change[0, 0], dtype=torch.bool)
    both[rows, columns] = both[from_rows, from_columns] = True
    budget = (change.square() * both).sum((-2, -1), keepdim=True) + left / change.shape[1]
    bump = _bump(side, rng).to(change) * _signs((*change.shape[:2], 1, 1), change, rng)
    new = bump + here / _length(here).clamp(min=1e-12)
    new = new / _length(new).clamp(min=1e-12) * budget.sqrt()
    source.zero_()
    here.copy_(new)
    return change


def _length(maps: Tensor) -> Tensor:
    return maps.square().sum((-2, -1), keepdim=True).sqrt()


def _bump(side: int, rng: torch.Generator) -> Tensor:
    """Two hills [side, side] of length 1 in all, one up and one down, side by side or on top of each other."""
    hills = torch.cat([_hill(side // 2, side), -_hill(side - side // 2, side)])
    hills = hills / hills.norm()
    return hills.T if torch.rand((), generator=rng) < 0.5 else hills


def _hill(rows: int, columns: int) -> Tensor:
    """A hill [rows, columns] of length 1: at distance d from the middle (in the maximum norm) sum_(j > d) 1 / j^2."""
    far = max(rows, columns) // 2
    down, across = (torch.arange(size) - size // 2 for size in (rows, columns))
    distance = torch.maximum(down.abs()[:, None], across.abs()[None, :])
    height = (1 / torch.arange(1, far + 2) ** 2).flip(0).cumsum(0).flip(0)[distance]
    return height / height.norm() if rows else height
