"""A file of calls that outlives its process, and how far they have been told."""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from snnsweep import lines

SPOOL, DELIVERED = "tracking.jsonl", "tracking.delivered"  # in a sweep's folder
_IN_MEMORY = 10_000  # calls that wait for room on a full disk
_LOGGER = logging.getLogger("snnsweep")


class Journal:
    """Calls as JSON lines in `tracking.jsonl`, read in the order in which they were written.

    One process at a time. In it any thread may `append`, and one may read. A line that was cut short or damaged is
    passed over (`snnsweep.lines`). Memory does not grow with what is left to read.

    Args:
        folder: it exists.
        run_id: of the sweep's MLflow run, for the first line of a new file.
        warn: is told when the file cannot be written.

    Raises:
        OSError: the files are there but cannot be read.
    """

    def __init__(self, folder: Path, run_id: str | None = None, warn: Callable[[str], None] = _LOGGER.warning):
        self.file, self._mark, self._warn = folder / SPOOL, folder / DELIVERED, warn
        self._lock = threading.Lock()
        self._unwritten: deque[tuple[str, int]] = deque()  # lines, and how many calls each of them is
        self._full = False
        self._read = self._next = self._marked()
        self._left = sum(1 for _ in self._calls(self._read))
        if run_id and not self.run_id:
            self._put({"run_id": run_id}, 0)

    @property
    def left(self) -> int:
        """How many calls have not been told."""
        with self._lock:
            return self._left + sum(count for _, count in self._unwritten)

    @property
    def run_id(self) -> str | None:
        """What the first line says."""
        return next((str(said["run_id"]) for said, _ in self._objects(0) if "run_id" in said), None)

    def said_last(self, call: str) -> dict[str, dict[str, Any]]:
        """What the last line of that call says of each trial, by trial id."""
        found = (line.said for line in lines.after(self.file, holding=f'"{call}"'.encode()))
        told = [one["said"] for one in found if one is not None and one.get("call") == call]
        return {said["trial_id"]: said for said in told}

    def untold(self, call: str) -> set[str]:
        """The trials of which MLflow is yet to be told this."""
        return {str(one["said"]["trial_id"]) for one, _ in self._calls(self._read) if one["call"] == call}

    def append(self, call: dict[str, Any]) -> None:
        """Write a call, which has a key `call`. A full disk is warned about, and what it did not take is tried again.

        Raises:
            TypeError, ValueError: it has no JSON form.
        """
        self._put(call, 1)

    def flush(self) -> None:
        """Try again to write what a full disk did not take."""
        with self._lock:
            self._write()

    def next(self) -> dict[str, Any] | None:
        """The first call that has not been told; None where all have been."""
        call, self._next = next(self._calls(self._read), (None, self._read))
        return call

    def done(self) -> None:
        """The call that `next` gave has been told."""
        self._read = self._next
        with suppress(OSError):  # a full disk: should this process die now, a few calls are told again
            file = os.open(self._mark, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(file, b"%020d\n" % self._read, 0)  # in place and always as long: never half of it
            finally:
                os.close(file)
        with self._lock:  # after the mark: where nothing is left, another process may go on at once
            self._left -= 1

    def _put(self, said: dict[str, Any], count: int) -> None:
        line = json.dumps(said, allow_nan=False)
        with self._lock:
            if len(self._unwritten) < _IN_MEMORY:
                self._unwritten.append((line, count))
            self._write(synced=said.get("call") == "end_trial")  # nothing says it again after the power was lost

    def _write(self, synced: bool = False) -> None:
        if not self._unwritten:
            return
        try:
            while self._unwritten:
                line, count = self._unwritten[0]
                lines.append(self.file, line, synced=synced and len(self._unwritten) == 1)
                self._unwritten.popleft()
                self._left += count
            self._full = False
        except OSError as error:
            if not self._full:
                self._warn(
                    f"{self.file} cannot be written ({error.strerror}); the next {_IN_MEMORY} calls to MLflow are kept "
                    "in memory until it can, and lost if this process dies before"
                )
            self._full = True

    def _marked(self) -> int:
        try:
            mark = int(self._mark.read_bytes())
        except (FileNotFoundError, ValueError):
            return 0
        return mark if self.file.exists() and mark <= self.file.stat().st_size else 0

    def _calls(self, start: int) -> Iterator[tuple[dict[str, Any], int]]:
        return ((said, end) for said, end in self._objects(start) if "call" in said)

    def _objects(self, start: int) -> Iterator[tuple[dict[str, Any], int]]:
        """The whole lines from byte `start` on, each with the byte after it."""
        return ((line.said, line.end) for line in lines.after(self.file, start) if line.said is not None)
