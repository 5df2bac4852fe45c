"""What can be said of a sweep while it runs."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from snnsweep.result import Direction, Result, Status

RECENT = 500  # trials from which the time that is left is estimated, again and again


@dataclass
class Progress:
    """What can be said of a sweep while it runs.

    Attributes:
        ended: trial counts by status.
        running: epochs done of each running trial.
        best: for each objective its best value among the finished and whose it is.
        seconds: wall-clock times of the trials that ended last.
        last: the last ended trial's id and result.
    """

    total: int
    objectives: Mapping[str, Direction]
    slots: int
    ended: dict[Status, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    best: dict[str, tuple[float, str]] = field(default_factory=dict)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    front_size: int = 0
    last: tuple[str, Result] | None = None

    @property
    def done(self) -> int:
        return sum(self.ended.values())

    @property
    def left_s(self) -> float | None:
        """Seconds left, from the median of the last trials and how many that run side by side."""
        if not self.seconds:
            return None
        return median(self.seconds) * (self.total - self.done) / max(1, self.slots)

    def note(self, trial_id: str, result: Result) -> None:
        """A trial has ended."""
        self.last = (trial_id, result)
        self._count(trial_id, result.status, result.metrics)

    def take_over(self, rows: Iterable[Mapping[Any, Any]]) -> None:
        """Trials that ended before this start of the sweep."""
        for row in rows:
            self._count(row["trial_id"], row["status"], row)

    def _count(self, trial_id: str, status: Status, figures: Mapping[Any, Any]) -> None:
        self.ended[status] = self.ended.get(status, 0) + 1
        for name, way in self.objectives.items() if status == "finished" else ():
            value, known = figures.get(name), self.best.get(name)
            if value is not None and (known is None or (value > known[0] if way == "maximize" else value < known[0])):
                self.best[name] = (value, trial_id)
