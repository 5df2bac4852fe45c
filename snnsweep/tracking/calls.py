"""What a sweep says to MLflow, each call as a line of a journal."""

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from snnsweep.result import Direction
from snnsweep.tracking.journal import Journal
from snnsweep.tracking.words import readable


class Calls:
    """Methods of a `Tracker` that write to a journal, from any thread; none waits, or raises for MLflow's sake.

    Args:
        folder: the sweep's, or the confirmation's; it exists, and no other process writes there.
        run_id: of the sweep's run.
        warn: is told when a file cannot be written.
    """

    def __init__(self, folder: Path, run_id: str, warn: Callable[[str], None]):
        self._folder, self._run_id, self._warn = folder, run_id, warn
        self._journal = Journal(folder, run_id, warn)
        self._lock, self._said_at = threading.Lock(), 0
        self._stirred = threading.Event()  # something was said

    def ended(self) -> dict[str, dict[str, Any]]:
        """What was said last of each trial's end, by its id; nothing where a full disk lost it."""
        return self._journal.said_last("end_trial")

    def modelled(self) -> set[str]:
        """The trials whose models MLflow has, or will be told of: a folder that is left after that failed."""
        said, waiting = self._journal.said_last("log_model"), self._journal.untold("log_model")
        return waiting | {trial for trial, one in said.items() if not (self._folder / one["folder"]).is_dir()}

    def start_sweep(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any], note: str) -> None:
        """Go on with the sweep's run, when the sweep is resumed; params that it has stay as they are."""
        self._say("start_sweep", name=name, tags=_texts(tags), params=_texts(params), note=note, run_id=self._run_id)

    def start_trial(self, trial_id: str, name: str, params: Mapping[str, Any]) -> None:
        """As `Tracker.start_trial`."""
        self._say("start_trial", trial_id=trial_id, name=name, params=_texts(params))

    def log_epoch(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """As `Tracker.log_epoch`."""
        self._say("log_epoch", trial_id=trial_id, step=int(step), metrics=_finite(metrics))

    def log_data(self, trial_id: str, sets: Sequence[Mapping[str, Any]]) -> None:
        """As `Tracker.log_data`."""
        self._say("log_data", trial_id=trial_id, sets=list(sets))

    def mark_front(self, members: Sequence[str]) -> None:
        """As `Tracker.mark_front`."""
        self._say("mark_front", members=list(members))

    def log_course(self, step: int, metrics: Mapping[str, float]) -> None:
        """As `Tracker.log_course`."""
        self._say("log_course", step=int(step), metrics=_finite(metrics))

    def end_trial(
        self,
        trial_id: str,
        status: str,
        metrics: Mapping[str, float],
        warnings: Sequence[str],
        cause: str,
        step: int = 0,
        verdict: str = "",
    ) -> None:
        """As `Tracker.end_trial`."""
        said = {"status": status, "metrics": _finite(metrics), "warnings": list(warnings), "cause": cause}
        self._say("end_trial", trial_id=trial_id, **said, step=int(step), verdict=verdict)

    def log_front(
        self, front: pd.DataFrame, figure: Figure, files: Sequence[Path], objectives: Mapping[str, Direction]
    ) -> None:
        """The front, kept as front.json and front.png in the sweep's folder.

        Args:
            files: further ones for the sweep's run, in the sweep's folder; what is there when MLflow is told counts.

        Raises:
            ValueError: one of `files` is not in the sweep's folder.
        """
        members = [str(trial_id) for trial_id in front["trial_id"]] if len(front) else []
        names = [str(file.relative_to(self._folder)) for file in files]
        table = readable(front, objectives)
        self._keep("front.json", lambda path: table.to_json(path, orient="split", index=False))
        self._keep("front.png", lambda path: figure.savefig(path, format="png", dpi=150))
        files_too = ["front.json", "front.png", *names]
        self._say("log_front", members=members, files=files_too, models=bool(self.modelled()))

    def log_model(self, trial_id: str, folder: Path, tags: Mapping[str, str]) -> None:
        """As `Tracker.log_model`; the folder, which lies in the sweep's, is deleted when MLflow has been told."""
        place = str(folder.relative_to(self._folder))
        self._say("log_model", trial_id=trial_id, folder=place, tags=_texts(tags))

    def log_confirmed(
        self,
        pair: str,
        member: str,
        params: Mapping[str, Any],
        status: str,
        metrics: Mapping[str, float],
        warnings: Sequence[str],
        cause: str,
        verdict: str,
        sets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """As `Tracker.log_confirmed`."""
        said = {"status": status, "metrics": _finite(metrics), "warnings": list(warnings), "cause": cause}
        about = {"pair": pair, "member": member, "params": _texts(params)}
        self._say("log_confirmed", **about, **said, verdict=verdict, sets=list(sets))

    def end_sweep(self, status: str) -> None:
        """As `Tracker.end_sweep`."""
        self._say("end_sweep", status=status)

    def _say(self, call: str, **said: Any) -> None:
        with self._lock:
            self._said_at = max(self._said_at + 1, int(time.time() * 1000))  # MLflow shows the latest: no two are equal
            self._journal.append({"call": call, "at": self._said_at, "said": said})
        self._stirred.set()

    def _keep(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write a file so that the thread never sends half of it."""
        draft = self._folder / f".{name}.{os.getpid()}.tmp"
        try:
            write(draft)
            os.replace(draft, self._folder / name)
        except OSError as error:
            self._warn(f"{self._folder / name} cannot be written ({error.strerror}); MLflow does not get it")
            draft.unlink(missing_ok=True)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
