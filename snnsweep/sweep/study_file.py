"""Optuna's journal of a study as a sweep needs it: whole after a kill, and quick to ask who waits."""

import os
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from snnsweep import lines

_LOCK_S = 5.0  # a lock is held for milliseconds; one of this age was left by a process that was killed


class Journal(JournalFileBackend):
    """Optuna's journal file, made whole where a kill or a full disk cut its last line short.

    Optuna would append to the cut line, and no process could read the file any more. Its lock outlives a process
    that was killed: the next one would wait for half a minute, and in a folder that was moved for ever.

    Args:
        path: absolute; its folder exists. Only the one process that runs the sweep may open it thus.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path):
        lock = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), lock)
        self._path, self._one_at_a_time = path, lock
        self._free(path.with_name(f"{path.name}.lock"))
        self._mend()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._mend()  # the last one may have met a full disk
        super().append_logs(logs)

    def _mend(self) -> None:
        if lines.ends_whole(self._path):
            return
        self._one_at_a_time.acquire()  # another process may merely be in the middle of its line
        try:
            lines.take_off_half(self._path)
        finally:
            self._one_at_a_time.release()

    @staticmethod
    def _free(lock: Path) -> None:
        until = time.monotonic() + _LOCK_S
        while os.path.lexists(lock) and time.monotonic() < until:
            time.sleep(0.01)
        lock.unlink(missing_ok=True)


class StudyFile(JournalStorage):
    """Optuna's storage, quicker at listing thousands of trials: every ask lists those that wait, and all."""

    def __init__(self, journal: Journal):
        super().__init__(journal)
        self._ended: dict[int, int] = {}  # by study: so many trials at its head have ended, and stay so

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        ends = states is not None and any(state in states for state in TrialState if state.is_finished())
        if deepcopy or ends:
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            trials = self._replay_result._trials
            ids = self._replay_result._study_id_to_trial_ids.get(study_id)
            if ids is not None:
                if states is None:
                    return list(map(trials.__getitem__, ids))
                ended = self._ended.get(study_id, 0)
                while ended < len(ids) and trials[ids[ended]].state.is_finished():
                    ended += 1
                self._ended[study_id] = ended
                return [trial for one in ids[ended:] if (trial := trials[one]).state in states]
        return super().get_all_trials(study_id, deepcopy, states)  # raises what Optuna's does
