"""The models of a front's members, written for MLflow."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from snnsweep.results.store import load_sweep
from snnsweep.sweep.signals import ending_on_signal
from snnsweep.sweep.space import space_then, text_of
from snnsweep.sweep.trials import flat_of, load_trial
from snnsweep.tracking.models import save
from snnsweep.tracking.spool import Spool

FOLDER = "models"  # in a sweep's folder, until MLflow has them
EXAMPLES = 2  # images; one would fix the number
BUDGET_S = 600.0  # for all; a model takes seconds
_LOGGER = logging.getLogger("snnsweep")


def log_members(sweep: Path, members: Iterable[Mapping[Any, Any]], spool: Spool, data_dir: Path) -> None:
    """Each member's final weights, from its checkpoint, as a model; those that were logged stay as they are.

    What cannot be logged is warned about, and so is what a signal or the time leaves out: the next resume logs it.

    Args:
        members: rows of the front, the best first.
    """
    done, over, until = spool.modelled(), threading.Event(), time.monotonic() + BUDGET_S
    todo = [row for row in members if row["trial_id"] not in done]
    with ending_on_signal(over.set):
        while todo and not over.is_set() and time.monotonic() < until:
            row = todo.pop(0)
            try:
                _log(sweep, row, spool, data_dir)
            except Exception as error:  # noqa: BLE001 - a space's own parts, torch.export, a bucket: the sweep has ended well
                shutil.rmtree(sweep / FOLDER / row["trial_id"], ignore_errors=True)
                cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                _LOGGER.warning("%s: its model is not in MLflow: %s", row["trial_id"], cause)
    if todo:
        left = ", ".join(row["trial_id"] for row in todo)
        _LOGGER.warning("not in MLflow are the models of %s: `snnsweep resume %s` logs them", left, sweep)


def _log(sweep: Path, row: Mapping[Any, Any], spool: Spool, data_dir: Path) -> None:
    name, facts = row["trial_id"], load_sweep(sweep)
    trial = load_trial(sweep, name, data_dir)
    folder = sweep / FOLDER / name
    images = trial.data.validation.images(slice(EXAMPLES)).cpu()
    flat = {key: value for key, value in flat_of(row).items() if key != "device"}
    text = space_then(facts, text_of(row, facts)).text
    save(trial.model.cpu(), images, folder, {"config.json": json.dumps(flat, indent=1), "space.py": text})
    spool.log_model(name, folder, {"audit": row["audit"], "status": row["status"], "pareto": "true"})
