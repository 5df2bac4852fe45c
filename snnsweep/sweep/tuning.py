"""What every run of ours asks of Ray Tune."""

import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from snnsweep.sweep.checkpoints import trial_id

LOST_WORKERS = 3  # times that a trial goes on from its checkpoint after its process or machine was lost


def trial_name(trial: Trial) -> str:
    """The id that users see: Optuna's number."""
    return trial_id(trial.config["number"])


class Ender(tune.Stopper):
    """Ends a run of Ray's when its time is over or somebody says so. A clock that is set in between does not count.

    Args:
        seconds: from its first question on; None for no limit.

    Attributes:
        now: set to end it.
        over: whether its time was over.
    """

    def __init__(self, seconds: float | None = None):
        self.seconds, self.since = seconds, 0.0
        self.now, self.over = False, False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.since = self.since or time.monotonic()
        self.over = self.seconds is not None and time.monotonic() - self.since > self.seconds
        return self.now or self.over


def tuner(
    trainable: type[tune.Trainable],
    given: dict[str, Any],
    resources: dict[str, float],
    place: str,
    name: str,
    callbacks: list[tune.Callback],
    trial_name: Callable[[Trial], str],
    side_by_side: int,
    param_space: dict[str, Any] | None = None,
    ender: Ender | None = None,
    **search: Any,
) -> tune.Tuner:
    """A Tuner whose trials write a checkpoint after every step, and whose processes are reused.

    Args:
        given: arguments of the trainable's `setup`, by way of the object store.
        resources: `cpu` and `gpu` of a trial.
        place, name: Ray's state lies in place/name, a folder or a URI.
        callbacks: a `Tidy` among them, or all checkpoints are kept.
        trial_name: short, for the folders too.
        side_by_side: trials at once.
        ender: may end it early.
        search: further settings of `tune.TuneConfig`.
    """
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **given), resources),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=side_by_side,
            reuse_actors=True,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
            **search,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=place,
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            stop=ender,
            verbose=0,
        ),
    )
