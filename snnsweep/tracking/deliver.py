"""What a journal holds is told to MLflow, one call after the other."""

import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from snnsweep.errors import UserError
from snnsweep.tracking.journal import Journal
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.runs import Outage
from snnsweep.tracking.words import once

_LOGGER = logging.getLogger("snnsweep")
_CALLS = frozenset({"start_sweep", "start_trial", "log_epoch", "end_trial", "log_front", "end_sweep"})
_CALLS |= {"log_data", "log_course", "log_model", "log_confirmed", "mark_front"}


def sync(folder: Path, tracker: Tracker, warn: Callable[[str], None] = _LOGGER.warning) -> int:
    """Tell MLflow what a sweep's processes left untold. Only where no process runs the sweep.

    Args:
        folder: the sweep's.
        tracker: need not be connected.
        warn: is told of each call that MLflow will never take.

    Returns:
        How many calls were told.

    Raises:
        UserError: MLflow does not answer; what it was told until then is remembered.
    """
    journal = Journal(folder)
    total = journal.left
    if not total:
        return 0
    if journal.run_id is None:
        raise UserError(f"{journal.file} has to say its MLflow run in the first line, and does not; restore it")
    warn_once = once(warn)
    try:
        tracker.attach(journal.run_id)
        while call := journal.next():
            done_with = tell(tracker, folder, call, warn_once)
            journal.done()
            if done_with:
                forget(folder, call)
    except UserError as error:
        raise UserError(
            f"{error}; {journal.left} of {total} calls in {journal.file} are still to be told: start the server, "
            "then sync again"
        ) from None
    return total


def tell(tracker: Tracker, folder: Path, call: dict[str, Any], warn: Callable[[str], None]) -> bool:
    """One call. What MLflow never takes is warned about.

    Returns:
        False where what lies in the sweep's folder for it may be wanted again.

    Raises:
        Outage: it cannot be told now.
    """
    try:
        name, said = call["call"], dict(call["said"])
        if name not in _CALLS:
            raise ValueError(f"MLflow can be told no {name!r}")
        if "files" in said:
            said["files"] = [folder / file for file in said["files"] if (folder / file).exists()]
        if "folder" in said:
            said["folder"] = folder / said["folder"]
            if not said["folder"].is_dir():
                raise ValueError(f"{said['folder']} is gone")
        return getattr(tracker, name)(**said, at=call["at"]) is not False
    except Outage:
        raise
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        warn(f"MLflow will not be told all of {call['call']}: {error}")
        return True


def forget(folder: Path, call: dict[str, Any]) -> None:
    """Deletes a model's folder once MLflow has been told of it: the trial's checkpoint holds the weights too."""
    said = call.get("said")
    if call["call"] == "log_model" and isinstance(said, dict) and said.get("folder"):
        place = (folder / str(said["folder"])).resolve()
        if folder.resolve() not in place.parents:  # a line that was changed by hand
            return
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # others wait there still
            place.parent.rmdir()
