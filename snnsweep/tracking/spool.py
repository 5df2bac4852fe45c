"""What a sweep says to MLflow while it runs, said to a file at once and to the server when it listens."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from snnsweep.tracking.calls import Calls
from snnsweep.tracking.deliver import forget, tell
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.words import once

_LOGGER = logging.getLogger("snnsweep")
PATIENCE_S = 30.0  # that the end of a sweep waits for MLflow
_PAUSES = (2.0, 60.0)  # seconds between two tries of a server that is down: at first, at the most
_LAST_TRY_S = 1.0  # for a server that is down when the sweep ends


class Spool(Calls):
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
        super().__init__(folder, run_id, warn)
        self._tracker, self._warn_once = tracker, once(warn)
        self._outage = ""
        self._failures = 0
        self._hurried, self._over = threading.Event(), False
        threading.Thread(target=self._tell_all, name="snnsweep-mlflow", daemon=True).start()

    @property
    def undelivered(self) -> int:
        """How many calls MLflow has not been told."""
        return self._journal.left

    @property
    def outage(self) -> str:
        """Why MLflow cannot be told now; "" while all is well."""
        return self._outage

    def close(self, patience_s: float = PATIENCE_S) -> int:
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
        done_with = tell(self._tracker, self._folder, call, self._warn_once)
        self._journal.done()
        if done_with:
            forget(self._folder, call)
        if self._outage:
            self._outage = ""
            self._warn(f"MLflow answers again; it is told the rest ({self.undelivered} calls)")
        return True

    def _goes_down(self, cause: str) -> None:
        if not self._outage:
            self._warn(f"{cause}; the sweep goes on, and MLflow is told later")
        self._outage = cause
        self._failures += 1
