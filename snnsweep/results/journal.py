"""The journal of a table: a line of JSON for every row, on the disk before anything else knows of the row."""

import errno
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnsweep import lines
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
        try:
            lines.append(self.path, *(json.dumps(row, ensure_ascii=False, default=_plain) for row in rows))
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
            for line in lines.after(self.path, self.end):
                self.end = line.end
                if (row := _row(line.said)) is not None:
                    rows.append(row)
                elif not line.blank:
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
        told = (line for line in lines.after(self.path) if line.end <= self.end)
        return [row for line in told if (row := _row(line.said)) is not None]


def latest(rows: list[Row]) -> dict[str, Row]:
    """The last row of each trial, by its id, in the order of their first ones."""
    return {row["trial_id"]: row for row in rows}


def reason_of(error: OSError) -> tuple[str, str]:
    """Why, and what to do about it."""
    if error.errno in _FULL:
        return "the disk is full", "free some space"
    return error.strerror or str(error), "mend that"


def _row(said: Row | None) -> Row | None:
    """Of a line; None where it is none."""
    if said is None or not isinstance(said.get("trial_id"), str):
        return None
    return {sys.intern(name): value for name, value in said.items()}  # else each row has names of its own


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)  # NumPy's scalars and arrays
