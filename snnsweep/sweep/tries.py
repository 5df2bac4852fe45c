"""What ended a trial's process, and how often a trial may lose one.

Ray Tune counts errors, not lost processes: where a process dies while the next trial is being set up in it, Tune is
told twice of the one death, takes the second for the trial's end, and does not start it again.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from ray import cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

from snnsweep.sweep.tuning import LOST_WORKERS, trial_name

LOW_MEMORY = "running low on memory"  # in the error of a process that Ray ended


class Tries:
    """How many processes each trial has lost, over all the runs of Ray's in one start of a sweep."""

    def __init__(self) -> None:
        self._lost: defaultdict[str, set[str]] = defaultdict(set)

    def begin(self, trial: Trial) -> None:
        """A trial starts in a run of Ray's: Tune shall try it as often as is left."""
        trial.max_failures = LOST_WORKERS - len(self._lost[trial_name(trial)])

    def lose(self, trial: Trial) -> None:
        """Its process was lost, or Tune says again that it was."""
        error = _raised(trial)
        process = getattr(error, "actor_id", None) or getattr(error, "_actor_id", None)  # of a death, of a lost task
        self._lost[trial_name(trial)].add(str(process or uuid4()))

    def left(self, trial: Trial) -> bool:
        """Whether it may go on once more."""
        return len(self._lost[trial_name(trial)]) <= LOST_WORKERS


@contextmanager
def every_loss_is_a_death() -> Iterator[None]:
    """Inside, Tune takes it as the death of one process when Ray ends one that takes too much memory, or loses what it
    said. Tune itself ends the whole run then, with a RuntimeError: it knows a RayActorError alone.
    """
    told = RayActorManager._actor_task_failed

    def failed(self: RayActorManager, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        told(self, tracked_actor_task, exception)

    with patch.object(RayActorManager, "_actor_task_failed", failed):
        yield


def cause_of(trial: Trial) -> str:
    """The last line of the error that ended a trial: `ValueError: ...`."""
    inner = error_of(trial)
    if inner is None or (isinstance(inner, RayActorError) and not inner.actor_init_failed):
        for_memory = ": the node ran low on memory, and Ray ended it" if LOW_MEMORY in str(inner) else ""
        return f"the trial's process was lost{for_memory}"
    return f"{type(inner).__name__}: {inner}".strip().splitlines()[-1]


def error_of(trial: Trial) -> Any:
    """The error that ended a trial, as it was raised there."""
    error = _raised(trial)
    return getattr(error, "cause", None) or error


def _raised(trial: Trial) -> Any:
    """As Ray has it: on this machine first, and only later where `Trial.get_pickled_error` looks."""
    file = trial.pickled_error_file
    return cloudpickle.loads(Path(file).read_bytes()) if file and Path(file).is_file() else None
