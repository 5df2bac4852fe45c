"""What can be said of a sweep while it runs."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from statistics import fmean
from typing import Any

import numpy as np

from snnsweep.result import Direction, Result, Status
from snnsweep.results.front import RunningFront
from snnsweep.results.ranking import hypervolume, is_share, reference_point

RECENT = 500  # trials from which the time that is left is estimated, again and again
ROUNDS = 3  # of the slots are played through for that; by then no slot is ahead of the others any more


@dataclass(frozen=True)
class Running:
    """A trial on its way.

    Attributes:
        since: when this start of the sweep began or took it up; of the monotonic clock.
        begun_at: epochs that it had trained by then.
        epochs: that it trains in all; None where nobody knows.
    """

    since: float
    begun_at: int
    epochs: int | None


@dataclass(frozen=True)
class Volume:
    """What the front dominates, bounded by `reference`: without that the figure says nothing."""

    value: float
    reference: Mapping[str, float]


@dataclass
class Progress:
    """What can be said of a sweep while it runs.

    Attributes:
        slots: trials that run side by side.
        has_front: whether the trials are compared; the pairs of a confirmation are not.
        ended: trial counts by status.
        running: epochs done of each running trial.
        begun: more on each of these.
        best: for each objective its best value among the finished and whose it is.
        seconds: wall-clock times of the trials that ended last.
        last: the last ended trial's id and result.
    """

    total: int
    objectives: Mapping[str, Direction]
    slots: int
    has_front: bool = True
    ended: dict[Status, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    begun: dict[str, Running] = field(default_factory=dict)
    best: dict[str, tuple[float, str]] = field(default_factory=dict)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    last: tuple[str, Result] | None = None
    _points: dict[str, list[float]] = field(default_factory=dict)  # of the finished
    _volume: Volume | None = None

    def __post_init__(self) -> None:
        self._front = RunningFront(self.objectives)

    @property
    def done(self) -> int:
        return sum(self.ended.values())

    @property
    def front_size(self) -> int:
        return len(self._front)

    @property
    def front(self) -> list[str]:
        """The front's members so far, the best in the first objective first."""
        return self._front.members

    @property
    def left_s(self) -> float | None:
        """Seconds left; None until a trial has ended in this start of the sweep.

        Whoever waits takes as long as the ended ones did on average, the stopped and failed too, with those of the
        running that have run longer already, and begins when a slot is free. Whoever runs takes that long or, where it
        is more, as long as its epochs so far let expect; of one that is late nobody knows: as long again as it is late.
        """
        if not self.seconds:
            return None
        ended, now = list(self.seconds), time.monotonic()  # a terminal's thread may ask while trials end
        ages = [now - run.since for run in list(self.begun.values())]
        usual = fmean([*ended, *(age for age in ages if age > fmean(ended))])
        busy = [self._left_of(name, usual, now) for name in list(self.running)]
        waiting = max(0, self.total - self.done - len(busy))
        slots = busy + [0.0] * (self.slots - len(busy)) or [0.0]
        rounds = max(0, waiting // len(slots) - ROUNDS)
        heapify(slots)
        for _ in range(waiting - rounds * len(slots)):
            heapreplace(slots, slots[0] + usual)
        return max(slots) + rounds * usual

    def _left_of(self, name: str, usual: float, now: float) -> float:
        run, epoch = self.begun.get(name), self.running.get(name, 0)
        if run is None:
            return 0.0
        age, trained = now - run.since, epoch - run.begun_at
        expected = age / trained * (run.epochs - epoch) if run.epochs and trained > 0 else 0.0
        return max(abs(usual - age), expected)

    @property
    def hypervolume(self) -> Volume | None:
        """Of the front so far, from `ranking.reference_point` of the finished; None until there is one."""
        if self._volume is None and self.front_size:
            points = [dict(zip(self.objectives, point, strict=True)) for point in self._points.values()]
            reference = reference_point(self.objectives, points)
            ways = list(self.objectives.values())
            self._volume = Volume(hypervolume(self._front.points, np.array(list(reference.values())), ways), reference)
        return self._volume

    def begin(self, trial_id: str, epochs_done: int, epochs: int | None) -> None:
        """A trial begins, or goes on; a second word of it changes nothing."""
        self.begun.setdefault(trial_id, Running(time.monotonic(), epochs_done, epochs))
        self.running.setdefault(trial_id, epochs_done)

    def note(self, trial_id: str, result: Result) -> None:
        """A trial has ended."""
        self.running.pop(trial_id, None)
        if run := self.begun.pop(trial_id, None):
            self.seconds.append(time.monotonic() - run.since)
        self.last = (trial_id, result)
        self._count({"trial_id": trial_id, "status": result.status, **result.metrics})

    def take_over(self, rows: Iterable[Mapping[Any, Any]]) -> None:
        """Trials that ended before this start of the sweep."""
        for row in rows:
            self._count(row)

    def _count(self, row: Mapping[Any, Any]) -> None:
        trial_id, status = row["trial_id"], row["status"]
        self.ended[status] = self.ended.get(status, 0) + 1
        if status != "finished":
            return
        for name, way in self.objectives.items():
            value, known = row.get(name), self.best.get(name)
            if (
                value is not None
                and np.isfinite(value)
                and (known is None or (value > known[0] if way == "maximize" else value < known[0]))
            ):
                self.best[name] = (value, trial_id)
        if self.has_front:
            self._compare(trial_id, row)

    def _compare(self, trial_id: str, row: Mapping[Any, Any]) -> None:
        point = [
            float(value) if isinstance(value := row.get(name), int | float) else np.nan for name in self.objectives
        ]
        if self.objectives and np.isfinite(point).all():
            self._points[trial_id] = point
            before = self._front.points
            self._front.add(row)
            if not np.array_equal(self._front.points, before) or not all(
                map(is_share, self.objectives)
            ):  # or the reference moved
                self._volume = None
