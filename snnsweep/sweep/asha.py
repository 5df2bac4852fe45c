"""Multi-objective asynchronous successive halving (Schmucker et al., arXiv 2106.12639), without Ray.

Trials meet at rungs: epochs grace * eta^k before their last. Whoever reaches one goes on if it is among the
best 1/eta of all that have reached it so far, itself included. "Best" is by non-dominated front (NSGA-II, Deb et al.,
2002); the front that is cut is ordered by an epsilon-net or by crowding distance.

This is the stopping variant, as Ray's own ASHA (ray issue 44256): a trial that falls behind is stopped, not paused. A
paused one would keep its checkpoint and its slot with the searcher for as long as it waits.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnsweep.errors import UserError, nearest
from snnsweep.result import Direction
from snnsweep.sweep.brackets import Brackets, rungs

Points = NDArray[np.float64]  # [n, m]: n points in m objectives, less is better
WORST = float(np.finfo(float).max)  # in every objective of a trial that misses one: behind every other front


def epsilon_net(points: Points, count: int) -> list[int]:
    """The first `count` of a spread-out order: whoever is farthest from its nearest already chosen point comes next.

    Farthest-point traversal as in Schmucker et al. (arXiv 2106.12639). It begins, like the authors' scheduler (Syne
    Tune's MOASHA), with the point that is best in the first objective. Distances are Euclidean, with each objective's
    range in `points` as its unit; the earlier point wins a tie.

    Returns:
        Indices into `points` [n, m]; `count` is at most n.
    """
    span = np.ptp(points, axis=0)
    scaled = points / np.where(span > 0, span, 1.0)
    picked = [int(points[:, 0].argmin())]
    gap = np.full(len(points), np.inf)  # to the nearest point picked
    while len(picked) < count:
        gap = np.minimum(gap, np.linalg.norm(scaled - scaled[picked[-1]], axis=1))
        gap[picked[-1]] = -1.0  # below its equals, which are 0 away
        picked.append(int(gap.argmax()))
    return picked


def crowding(points: Points, count: int) -> list[int]:
    """The first `count` by crowding distance (Deb et al., 2002, section III-B), the loneliest first.

    The best and the worst of each objective stand at infinity; the earlier point wins a tie.

    Returns:
        Indices into `points` [n, m].
    """
    distance = np.zeros(len(points))
    for column in points.T[np.ptp(points, axis=0) > 0]:
        order = column.argsort(kind="stable")
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / np.ptp(column)
        distance[[column.argmin(), column.argmax()]] = np.inf
    return (-distance).argsort(kind="stable")[:count].tolist()


ORDERS: dict[str, Callable[[Points, int], list[int]]] = {"epsilon_net": epsilon_net, "crowding": crowding}


class Fronts:
    """Points and their non-dominated fronts (Deb et al., 2002), kept up to date as points arrive.

    A new point moves others by one front at most, so that only what it pushes is looked at again.

    Attributes:
        points: [n, m], in order of arrival.
        ranks: [n], 0 for the front that nobody dominates.
    """

    def __init__(self, objectives: int):
        self.points: Points = np.empty((0, objectives))
        self.ranks: NDArray[np.intp] = np.empty(0, dtype=np.intp)

    def add(self, point: list[float]) -> None:
        new = np.array([point])
        rank = self.ranks[_dominate(self.points, new)[:, 0]].max(initial=-1) + 1
        pushed = np.flatnonzero((self.ranks == rank) & _dominate(new, self.points)[0])
        self.points = np.concatenate([self.points, new])
        self.ranks = np.append(self.ranks, rank)
        while pushed.size:
            rank += 1
            met = np.flatnonzero(self.ranks == rank)
            self.ranks[pushed] = rank
            pushed = met[_dominate(self.points[pushed], self.points[met]).any(axis=0)]

    def last_is_among(self, count: int, order: Callable[[Points, int], list[int]]) -> bool:
        """Whether the point that came last is one of the best `count`."""
        own = np.flatnonzero(self.ranks == self.ranks[-1])
        room = count - int((self.ranks < self.ranks[-1]).sum())
        if not 0 < room < len(own):
            return room > 0
        return len(own) - 1 in order(self.points[own], room)


def _dominate(some: Points, others: Points) -> NDArray[np.bool_]:
    """[a, b]: whether a point of `some` [a, m] dominates one of `others` [b, m]."""
    ones, twos = some.T[:, :, None], others.T[:, None]  # objectives first: numpy is slow along a short last axis
    return np.logical_and((ones <= twos).all(axis=0), (ones < twos).any(axis=0))


class Asha:
    """Who goes on at which rung.

    The same reports in the same order give the same decisions. A trial is counted once at a rung: one that went back
    to a checkpoint and reports an epoch again is told the same again, and one that was stopped stays stopped. A trial
    that misses a metric at a rung (or has NaN or an infinity there) ranks below all others.

    The best floor(n / eta) of n go on, as in asynchronous successive halving (Li et al., arXiv 1810.05934, Algorithm
    2). That is nobody for n < eta, where the promoting variant waits and starts other trials meanwhile; a trial that
    is never paused cannot wait, so here the first eta - 1 to reach a rung all go on.

    Brackets are Hyperband's (Li et al., arXiv 1603.06560): bracket s begins at grace * eta^s, has rungs of its own, and
    is drawn with Hyperband's share eta^h / (h + 1) for its h rungs, from the seed and the trial's name alone.

    Args:
        metrics: what is compared at a rung, with its directions; the epsilon-net begins with the best in the first.
        longest: the most epochs that a trial of the sweep trains, as far as is known when it begins: Hyperband's shares
            go by it. A trial that trains longer meets further rungs.
        grace: the first rung, in epochs.
        eta: one in so many goes on; 3 as in the authors' own scheduler (Syne Tune's MOASHA).
        brackets: 1 is plain successive halving; at most one more than there are rungs.
        order: `epsilon_net` or `crowding`, of the front that is cut.
        seed: of the brackets.

    Attributes:
        settings: the arguments, as JSON types.
        brackets: which epochs are rungs, and which trial begins at which.
        rungs: bracket 0's below `longest`.
        records: every report at a rung, in order of arrival: `trial`, `epoch`, `values` (None for a missing metric),
            `goes_on`.
        stopped: the epoch of the rung where a trial was stopped, by trial.

    Raises:
        UserError: a setting is out of its range.
    """

    def __init__(
        self,
        metrics: Mapping[str, Direction],
        longest: int,
        *,
        grace: int = 1,
        eta: int = 3,
        brackets: int = 1,
        order: str = "epsilon_net",
        seed: int = 0,
    ):
        self.settings: dict[str, Any] = {"metrics": dict(metrics), "longest": longest, "grace": grace, "eta": eta}
        self.settings |= {"brackets": brackets, "order": order, "seed": seed}
        _check(self.settings)
        self.rungs = rungs(grace, eta, longest)
        self._signs = {name: -1.0 if way == "maximize" else 1.0 for name, way in metrics.items()}
        self._eta, self._order = eta, ORDERS[order]
        heights = [len(self.rungs) - start for start in range(brackets)]
        self.brackets = Brackets(grace, eta, tuple(eta**height / (height + 1) for height in heights), seed)
        self._clear()

    def _clear(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.stopped: dict[str, int] = {}
        self._seen: set[tuple[str, int]] = set()
        self._fronts: defaultdict[tuple[int, int], Fronts] = defaultdict(partial(Fronts, len(self._signs)))

    def goes_on(self, trial: str, epoch: int, metrics: Mapping[str, float | None], epochs: int | None = None) -> bool:
        """Whether a trial goes on after an epoch.

        Args:
            trial: a name that a restored sweep knows it by again.
            epoch: counted from 1.
            metrics: its values after that epoch; others than those compared may be among them.
            epochs: that the trial trains; by default `longest`.
        """
        if trial in self.stopped or (trial, epoch) in self._seen:
            return trial not in self.stopped
        if not self.brackets.meets(trial, epoch, self.settings["longest"] if epochs is None else epochs):
            return True
        values = [_number(metrics.get(name)) for name in self._signs]
        fronts = self._enter(trial, epoch, values)
        reached = len(fronts.ranks)
        goes_on = reached < self._eta or fronts.last_is_among(reached // self._eta, self._order)
        self._note({"trial": trial, "epoch": epoch, "values": values, "goes_on": goes_on})
        return goes_on

    def _enter(self, trial: str, epoch: int, values: list[float | None]) -> Fronts:
        fronts = self._fronts[self.brackets.of(trial), epoch]
        costs = [sign * value for sign, value in zip(self._signs.values(), values, strict=True) if value is not None]
        fronts.add(costs if len(costs) == len(values) else [WORST] * len(values))
        return fronts

    def _note(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        self._seen.add((record["trial"], record["epoch"]))
        if not record["goes_on"]:
            self.stopped[record["trial"]] = record["epoch"]

    def state_dict(self) -> dict[str, Any]:
        """`settings` and `records`, of plain JSON types."""
        return {"settings": self.settings, "records": list(self.records)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Forgets everything and takes up what `state_dict` gave.

        Raises:
            UserError: it was made under other settings.
        """
        theirs = state["settings"]
        other = [name for name, mine in self.settings.items() if json.dumps(mine) != json.dumps(theirs.get(name))]
        if other:
            lines = [f"  {name}: {theirs.get(name)!r} then, {self.settings[name]!r} now" for name in other]
            raise UserError("\n".join(["rungs can only go on under the settings they were begun with", *lines]))
        self._clear()
        for record in state["records"]:
            self._enter(record["trial"], record["epoch"], record["values"])
            self._note(dict(record))


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _check(settings: Mapping[str, Any]) -> None:
    problems = [
        f"{name}={settings[name]}: has to be at least {least}"
        for name, least in {"longest": 1, "grace": 1, "eta": 2, "brackets": 1}.items()
        if settings[name] < least
    ]
    if not settings["metrics"]:
        problems.append("metrics: name at least one that trials are compared by at a rung")
    if settings["order"] not in ORDERS:
        problems.append(f"order={settings['order']!r}: {nearest(settings['order'], ORDERS)}")
    if not problems:
        most = len(rungs(settings["grace"], settings["eta"], settings["longest"])) + 1
        if settings["brackets"] > most:
            problems.append(f"brackets={settings['brackets']}: at most {most}, one more than there are rungs")
    if problems:
        raise UserError("\n".join(["successive halving cannot be set up like this:", *(f"  {p}" for p in problems)]))
