"""What every run of ours asks of Ray Tune."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

LOST_WORKERS = 3  # times that a trial goes on from its checkpoint after its process or machine was lost


def tuner(
    trainable: type[tune.Trainable],
    given: dict[str, Any],
    resources: dict[str, float],
    folder: Path,
    name: str,
    callback: tune.Callback,
    trial_name: Callable[[Trial], str],
    side_by_side: int,
    param_space: dict[str, Any] | None = None,
    **search: Any,
) -> tune.Tuner:
    """A Tuner whose trials keep one checkpoint each, after every step, and whose processes are reused.

    Args:
        given: arguments of the trainable's `setup`, by way of the object store.
        resources: `cpu` and `gpu` of a trial.
        folder, name: Ray's state lies in folder/name.
        trial_name: short, for the folders too.
        side_by_side: trials at once.
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
            storage_path=str(folder),
            callbacks=[callback],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1, checkpoint_at_end=True),
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            verbose=0,
        ),
    )
