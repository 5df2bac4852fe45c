"""The journal of a table: a line of JSON for every row, on the disk before anything else knows of the row.

Python's JSON: floats come back bit for bit, NaN and the infinities too, and a lone surrogate stays one.
"""

import errno
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from snnsweep.errors import SnnSweepError, UserError

Row = dict[str, Any]
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOGGER = logging.getLogger("snnsweep")


class Journal:
    """Rows, in the order in which they were written; one process appends, any number may read.

    Args:
        path: need not exist.

    Attributes:
        end: how many bytes have been read; what is appended comes after it.
        spoiled: how many lines were passed over, because they were cut short or damaged.
    """

    def __init__(self, path: Path):
        self.path, self.end, self.spoiled = path, 0, 0

    def size(self) -> int:
        """Bytes on the disk; 0 where there is no journal."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Bring rows to the disk, each with its `trial_id`; whatever has no JSON form goes as text.

        Raises:
            SnnSweepError: the disk is full, or cannot be written to; the journal is as it was before.
            TypeError: a `trial_id` is no text.
        """
        if wrong := [row["trial_id"] for row in rows if not isinstance(row["trial_id"], str)]:
            raise TypeError(f"a trial_id has to be text; given {wrong[0]!r}")
        lines = "".join(f"{json.dumps(row, ensure_ascii=False, default=_plain)}\n" for row in rows)
        try:
            self._append(lines.encode("utf-8", "surrogatepass"))
        except OSError as error:
            reason, mend = reason_of(error)
            trials = ", ".join(str(row["trial_id"]) for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
            raise SnnSweepError(
                f"{self.path}: {reason}; the row of trial {trials} is not written, but nothing that had ended "
                f"before is lost: {mend}, then resume"
            ) from error

    def news(self) -> list[Row]:
        """The rows after `end`, which moves on.

        Raises:
            UserError: the journal is there, but cannot be read.
        """
        rows, spoiled = [], 0
        try:
            for line, row in self._lines(self.end):
                self.end += len(line)
                if row is not None:
                    rows.append(row)
                elif line.strip():
                    spoiled += 1
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({reason_of(error)[0]}); mend that, or restore it") from None
        if spoiled:
            self.spoiled += spoiled
            _LOGGER.warning("%s: lines that were cut short or damaged, passed over: %d", self.path, spoiled)
        return rows

    def rows(self) -> list[Row]:
        """The rows before `end`, again.

        Raises:
            OSError: the journal cannot be read any more.
        """
        end, rows = 0, []
        for line, row in self._lines(0):
            if end >= self.end:
                break
            end += len(line)
            if row is not None:
                rows.append(row)
        return rows

    def _lines(self, start: int) -> Iterator[tuple[bytes, Row | None]]:
        """Lines and what they say, but for a last one that is not whole (yet)."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                row = _row(line)
                if row is None and not line.endswith(b"\n"):
                    return
                yield line, row

    def _append(self, lines: bytes) -> None:
        begun = self.path.exists()
        with self.path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":  # a line that was cut short
                lines = b"\n" + lines
            try:
                left = memoryview(lines)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
        if not begun:
            _sync_folder(self.path.parent)


def latest(rows: list[Row]) -> dict[str, Row]:
    """The last row of each trial, by its id, in the order of their first ones."""
    return {row["trial_id"]: row for row in rows}


def reason_of(error: OSError) -> tuple[str, str]:
    """Why, and what to do about it."""
    if error.errno in _FULL:
        return "the disk is full", "free some space"
    return error.strerror or str(error), "mend that"


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("trial_id"), str):
        return None
    return {sys.intern(name): value for name, value in row.items()}  # else each row has names of its own


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)  # NumPy's scalars and arrays


def _sync_folder(folder: Path) -> None:
    """The new name reaches the disk too; not every file system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
