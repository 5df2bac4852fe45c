"""Checkpoints that are not wanted any more are deleted beside Ray's loop."""

import logging
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyarrow import ArrowException
from ray import tune
from ray.tune.experiment import Trial

from snnsweep.sweep.checkpoints import keep_newest

CHECKPOINTS = 2  # of a running trial: a crash can leave the newest one cut short
_AT_ONCE = 16  # a bucket takes about a tenth of a second for each
_LOGGER = logging.getLogger("snnsweep")


class Tidy(tune.Callback):
    """Keeps the last two checkpoints of a running trial, and the last of an ended one.

    Ray's `num_to_keep` would delete in its loop, where every other trial waits meanwhile. It also has Ray write the
    state of all trials, ended ones too, each time that one of them has written so many checkpoints.

    Args:
        place: of the checkpoints, see `checkpoints.root`.
    """

    def __init__(self, place: str):
        self.place = place
        self._kept: defaultdict[str, dict[str, tune.Checkpoint]] = defaultdict(dict)  # by trial and path, oldest first
        self._pool = ThreadPoolExecutor(_AT_ONCE, "snnsweep-tidy")

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks; threads stay with this process."""
        return {}

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        kept = self._kept[trial.trial_id]
        kept.pop(checkpoint.path, None)  # a trial that was lost writes its last one again
        kept[checkpoint.path] = checkpoint
        for path in list(kept)[:-CHECKPOINTS]:
            files = kept.pop(path).filesystem
            assert files  # Ray gives every checkpoint one
            self._later(files.delete_dir, path)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._kept.pop(trial.trial_id, None)

    def keep_newest(self, trial_id: str) -> None:
        """Of an ended trial, by our id, the newest checkpoint alone is kept."""
        self._later(keep_newest, self.place, trial_id)

    def close(self) -> None:
        """Waits until all is deleted."""
        self._pool.shutdown()

    def _later(self, delete: Callable[..., None], *given: str) -> None:
        self._pool.submit(_without_fail, delete, *given)


def _without_fail(delete: Callable[..., None], *given: str) -> None:
    try:
        delete(*given)
    except FileNotFoundError:  # somebody was faster
        pass
    except (OSError, ArrowException) as error:
        _LOGGER.warning("a checkpoint of %s could not be deleted (%s)", given[-1], error)
