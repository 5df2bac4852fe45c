"""What a sweep says to MLflow while it runs, said to a file at once and to the server when it listens."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from snnsweep.errors import UserError
from snnsweep.result import Direction
from snnsweep.tracking.journal import Journal
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.runs import Outage
from snnsweep.tracking.words import once, readable

_LOGGER = logging.getLogger("snnsweep")
_CALLS = frozenset({"start_sweep", "start_trial", "log_epoch", "end_trial", "log_front", "end_sweep"})
_PAUSES = (2.0, 60.0)  # seconds between two tries of a server that is down: at first, at the most
_LAST_TRY_S = 1.0  # for a server that is down when the sweep ends


class Spool:
    """A `Tracker` that never waits: each call is a line in the sweep's folder, told by a thread of its own.

    No call raises, or takes longer, because of MLflow or a full disk. While MLflow is down the thread tries it again
    and again; what this process leaves untold is told by a later one on the same folder, or by `sync`.

    Args:
        folder: the sweep's; it exists, and no other process writes there.
        tracker: used by the thread alone from now on; need not be connected.
        run_id: of the sweep's run, which `Tracker.start_sweep` made.
        warn: is told when MLflow goes down, when it answers again, and of each call that it will never take.
    """

    def __init__(self, folder: Path, tracker: Tracker, run_id: str, warn: Callable[[str], None] = _LOGGER.warning):
        self._folder, self._tracker, self._run_id, self._warn = folder, tracker, run_id, warn
        self._warn_once = once(warn)
        self._journal = Journal(folder, run_id, warn)
        self._outage = ""
        self._failures = 0
        self._said_at = 0
        self._stirred, self._hurried, self._over = threading.Event(), threading.Event(), False
        threading.Thread(target=self._tell_all, name="snnsweep-mlflow", daemon=True).start()

    @property
    def undelivered(self) -> int:
        """How many calls MLflow has not been told."""
        return self._journal.left

    @property
    def outage(self) -> str:
        """Why MLflow cannot be told now; "" while all is well."""
        return self._outage

    def ended(self) -> dict[str, dict[str, Any]]:
        """What was said last of each trial's end, by its id; nothing where a full disk lost it."""
        return self._journal.ended()

    def start_sweep(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any], note: str) -> None:
        """Go on with the sweep's run, when the sweep is resumed; params that it has stay as they are."""
        self._say("start_sweep", name=name, tags=_texts(tags), params=_texts(params), note=note, run_id=self._run_id)

    def start_trial(self, trial_id: str, name: str, params: Mapping[str, Any]) -> None:
        """As `Tracker.start_trial`."""
        self._say("start_trial", trial_id=trial_id, name=name, params=_texts(params))

    def log_epoch(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """As `Tracker.log_epoch`."""
        self._say("log_epoch", trial_id=trial_id, step=int(step), metrics=_finite(metrics))

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
        """The front, kept as front.json and front.png in the sweep's folder; its best values become metrics.

        Args:
            files: further ones for the sweep's run, in the sweep's folder; what is there when MLflow is told counts.

        Raises:
            ValueError: one of `files` is not in the sweep's folder.
        """
        members = [str(trial_id) for trial_id in front["trial_id"]] if len(front) else []
        best: dict[str, float] = {"front_size": len(front)}
        for name, way in objectives.items() if members else ():
            best[name] = front[name].max() if way == "maximize" else front[name].min()
        names = [str(file.relative_to(self._folder)) for file in files]
        table = readable(front, objectives)
        self._keep("front.json", lambda path: table.to_json(path, orient="split", index=False))
        self._keep("front.png", lambda path: figure.savefig(path, format="png", dpi=150))
        self._say("log_front", members=members, best=_finite(best), files=["front.json", "front.png", *names])

    def end_sweep(self, status: str) -> None:
        """As `Tracker.end_sweep`."""
        self._say("end_sweep", status=status)

    def close(self, patience_s: float = 30.0) -> int:
        """Wait until MLflow has been told all, or patience is over; a server that is down gets one try of a second.

        Nothing is told after it but the call that is under way.

        Returns:
            How many calls are left for `sync`.
        """
        self._journal.flush()
        self._stirred.set()
        self._hurried.set()
        now, before = time.monotonic(), self._failures
        while self.undelivered and self._failures == before and time.monotonic() < now + patience_s:
            if self._outage and time.monotonic() > now + _LAST_TRY_S:
                break
            time.sleep(0.01)
        self._over = True
        self._stirred.set()
        self._hurried.set()
        return self.undelivered

    def _say(self, call: str, **said: Any) -> None:
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

    def _tell_all(self) -> None:
        pause = _PAUSES[0]
        while True:
            self._stirred.clear()
            if self._over:
                return
            try:
                told = self._tell_next()
            except Exception as error:  # noqa: BLE001 - whatever it is, the sweep's other calls still want to be told
                self._goes_down(str(error) or type(error).__name__)
                self._hurried.wait(pause)
                self._hurried.clear()
                pause = min(2 * pause, _PAUSES[1])
                continue
            pause = _PAUSES[0]
            if not told:
                self._stirred.wait()

    def _tell_next(self) -> bool:
        call = self._journal.next()
        if call is None:
            return False
        self._tracker.attach(self._run_id)
        _tell(self._tracker, self._folder, call, self._warn_once)
        self._journal.done()
        if self._outage:
            self._outage = ""
            self._warn(f"MLflow answers again; it is told the rest ({self.undelivered} calls)")
        return True

    def _goes_down(self, cause: str) -> None:
        if not self._outage:
            self._warn(f"{cause}; the sweep goes on, and MLflow is told later")
        self._outage = cause
        self._failures += 1


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
            _tell(tracker, folder, call, warn_once)
            journal.done()
    except UserError as error:
        raise UserError(
            f"{error}; {journal.left} of {total} calls in {journal.file} are still to be told: start the server, "
            "then sync again"
        ) from None
    return total


def _tell(tracker: Tracker, folder: Path, call: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Raises:
    Outage: MLflow cannot be told now.
    """
    try:
        name, said = call["call"], dict(call["said"])
        if name not in _CALLS:
            raise ValueError(f"MLflow can be told no {name!r}")
        if "files" in said:
            said["files"] = [folder / file for file in said["files"] if (folder / file).exists()]
        getattr(tracker, name)(**said, at=call["at"])
    except Outage:
        raise
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        warn(f"MLflow will not be told all of {call['call']}: {error}")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
