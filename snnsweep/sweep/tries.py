"""What ended a trial's process, and how often a trial may lose one.

Ray Tune counts errors, not lost processes: where a process dies while the next trial is being set up in it, Tune is
told twice of the one death, takes the second for the trial's end, and does not start it again.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

from snnsweep.sweep.tuning import LOST_WORKERS, trial_name
from snnsweep.tracking.address import redacted

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

    A trial's last error stays in this process's memory. Tune would write it as it is, with the passwords that may be in
    its text, to the sweep's storage, read it back from there and unpickle it, which runs whatever somebody with access
    to that storage has put there.
    """
    told, noted = RayActorManager._actor_task_failed, Trial.handle_error

    def failed(self: RayActorManager, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        told(self, tracked_actor_task, exception)

    def note(self: Trial, exc: Any = None) -> None:
        kept = exc if isinstance(exc, RayTaskError | RayActorError) else None
        vars(self.temporary_state)["raised"] = kept  # which Ray writes nowhere
        with patch.object(Trial, "local_path", None):  # without one it counts the error, and writes nothing
            noted(self, exc)

    with (
        patch.object(RayActorManager, "_actor_task_failed", failed),
        patch.object(Trial, "handle_error", note),
        patch.object(Trial, "get_pickled_error", _raised),
    ):
        yield


def cause_of(trial: Trial) -> str:
    """The last line of the error that ended a trial: `ValueError: ...`."""
    inner = error_of(trial)
    if inner is None or (isinstance(inner, RayActorError) and not inner.actor_init_failed):
        for_memory = ": the node ran low on memory, and Ray ended it" if LOW_MEMORY in str(inner) else ""
        return f"the trial's process was lost{for_memory}"
    return redacted(f"{type(inner).__name__}: {inner}".strip().splitlines()[-1])


def error_of(trial: Trial) -> Any:
    """The error that ended a trial, as it was raised there."""
    error = _raised(trial)
    return getattr(error, "cause", None) or error


def host_of(trial: Trial) -> str:
    """Where that was, as far as Ray says, which it does in its text alone: ` (on 10.0.0.7)`."""
    address = re.search(r"\bip[=:] ?([^,)\s]+)", str(_raised(trial)))
    return f" (on {address[1]})" if address else ""


def _raised(trial: Trial) -> Any:
    """As Ray handed it to this process; None where it did not say."""
    return getattr(trial.temporary_state, "raised", None)
