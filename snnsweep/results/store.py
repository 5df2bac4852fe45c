"""A sweep's files: `results.parquet` with a row per trial, `front.parquet`, and `sweep.json`.

The truth about the rows is `results.jsonl`, the journal: a row is there, on the disk, before anything else is done.
The parquet files are made of it. They may lag behind it, and no reader sees that; where one is damaged or gone, it is
made anew.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from snnsweep.errors import SnnSweepError, UserError
from snnsweep.result import Direction
from snnsweep.results.columns import HEAD, TAIL, Columns, table_of
from snnsweep.results.files import anew, covered, facts_in, read_table, write_table
from snnsweep.results.files import write_json as write_json
from snnsweep.results.folder import FRONT, MIXES, RESULTS, SWEEP, has_rows, is_sweep, journal_of, load_sweep, no_sweep
from snnsweep.results.front import RunningFront, front
from snnsweep.results.journal import Journal, Row, latest, reason_of

SHARE, BURST_S = 0.05, 1.0  # of the wall time that may go into parquet files, and seconds of it that may be saved up
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
_LOGGER = logging.getLogger("snnsweep")


class Store:
    """The rows of one sweep; one process writes, any number may read.

    Rows that are on disk already are taken over, so that a resumed sweep goes on where it was. A sweep that has no
    journal yet gets one.

    Args:
        folder: the sweep's folder; it exists.
        provenance: kept as JSON in the parquet metadata under "snnsweep"; None keeps what is there.
        file: the parquet file's name; the journal beside it has that name with `.jsonl`.
        objectives: of the front that is kept in `front.parquet`; None keeps none.

    Raises:
        UserError: there are such files, but neither the parquet file nor the journal can be read.
        SnnSweepError: rows that only the parquet file holds cannot be written to the journal.
    """

    def __init__(
        self,
        folder: Path,
        provenance: Mapping[str, Any] | None = None,
        file: str = RESULTS,
        objectives: Mapping[str, Direction] | None = None,
    ):
        self.path = Path(folder) / file
        self._journal = Journal(journal_of(self.path))
        self._columns = Columns(self._journal.rows)
        self._front = RunningFront(objectives) if objectives else None
        self._credit, self._since = BURST_S, monotonic()
        for draft in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of one that was killed
            draft.unlink(missing_ok=True)
        table, damage = _parquet(self.path)
        rows, others = _rows(table, damage, self._journal)
        kept = facts_in(table) if table is not None else "{}"
        self._provenance = kept if provenance is None else json.dumps(provenance)
        self._written = -1 if table is None or self._front is not None else covered(table)
        self._note(rows)
        if others:
            self._journal.append(*others.values())
            self._note(latest(self._journal.news()))
        if self._behind():
            self._try_to_write()

    @property
    def front_size(self) -> int:
        """How many trials are on the front; 0 without objectives."""
        return 0 if self._front is None else len(self._front)

    @property
    def front_points(self) -> NDArray[np.float64]:
        """The members' objectives, [n, m]; no rows without objectives."""
        return np.empty((0, 0)) if self._front is None else self._front.points

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a trial's row (`Result.row`), in the place of an earlier one of the same `trial_id`.

        It is in the journal then. The parquet files follow at once while that takes less than a twentieth of the
        time, else with a later row or by `flush`; where they cannot be written, that is logged.

        Raises:
            SnnSweepError: the disk is full, or cannot be written to. The row is not kept, all before it are; it may
                be added again.
        """
        self._journal.append(row)
        self._note(latest(self._journal.news()))
        now = monotonic()
        self._credit, self._since = min(BURST_S, self._credit + SHARE * (now - self._since)), now
        if self._credit > 0:
            self._try_to_write()

    def flush(self) -> None:
        """Bring the parquet files up to date.

        Raises:
            SnnSweepError: they cannot be written; the old ones stay, and no row is lost.
        """
        try:
            if self._behind():
                self._write()
        except OSError as error:
            reason, mend = reason_of(error)
            raise SnnSweepError(
                f"{self.path}: {reason}; it is not up to date, but nothing is lost, every row is in "
                f"{self._journal.path}: {mend}, then resume"
            ) from error

    def frame(self) -> pd.DataFrame:
        """All rows, as `load_results` gives them."""
        return _frame(self._columns.table())

    def _note(self, rows: Mapping[str, Row]) -> None:
        for row in rows.values():
            self._columns.add(row)
            if self._front is not None:
                self._front.add(row)

    def _behind(self) -> bool:
        return bool(self._columns.places) and self._written != self._journal.end

    def _try_to_write(self) -> None:
        try:
            self._write()
        except OSError as error:
            self._credit = -BURST_S  # not again with the next row
            _LOGGER.warning(
                "%s: %s; it will be written later from %s", self.path, reason_of(error)[0], self._journal.path
            )

    def _write(self) -> None:
        begun, end = monotonic(), self._journal.end
        try:
            table = self._columns.table()
            write_table(self.path, table, self._provenance, end)
            if self._front is not None:
                places = [self._columns.places[trial] for trial in self._front.members]
                members = table.take(pa.array(places, pa.int64()))
                write_table(self.path.with_name(FRONT), members, self._provenance, end)
            self._written = end
        finally:
            self._credit -= monotonic() - begun


def load_results(folder: Path | str) -> pd.DataFrame:
    """Every trial of a sweep that has ended, in the order in which they ended; no rows when none has.

    Columns: `trial_id`, `status`, the config keys, the metrics, `epochs`, `warnings`, `cause`. What a trial does
    not have is missing (`pd.NA`, NaN or None).

    Raises:
        UserError: there is no sweep in that folder, or its file cannot be read.
    """
    return _load(Path(folder), RESULTS)


def load_front(folder: Path | str) -> pd.DataFrame:
    """The front of every trial that has ended; without a `sweep.json`, as it was written last.

    Raises:
        UserError: as for `load_results`.
    """
    folder = Path(folder)
    try:
        table = read_table(folder / FRONT)
    except UserError:
        if not (folder / SWEEP).is_file():
            raise
        table = None
    if (folder / SWEEP).is_file() and (table is None or covered(table) != Journal(journal_of(folder / RESULTS)).size()):
        return front(load_results(folder), load_sweep(folder)["objectives"])
    return _load(folder, FRONT) if table is None else _frame(table)


def load_mixes(folder: Path | str) -> pd.DataFrame:
    """The mixes of two trials that were made of a sweep; no rows when there is none.

    Raises:
        UserError: as for `load_results`.
    """
    return _load(Path(folder), MIXES)


def _load(folder: Path, name: str) -> pd.DataFrame:
    if has_rows(folder, name) and (table := _current(folder / name)).num_columns:
        return _frame(table)
    if is_sweep(folder):
        return pd.DataFrame(columns=[*HEAD, *TAIL])
    raise UserError(no_sweep(folder, f"{SWEEP} or {name}"))


def _parquet(path: Path) -> tuple[pa.Table | None, str]:
    """A parquet file with rows of trials; None where there is none, or where it is damaged, and how."""
    try:
        table = read_table(path)
    except UserError as error:
        return None, str(error)
    if table is not None and "trial_id" not in table.column_names:
        return None, f"{path} cannot be read (no column trial_id); {anew(path)}"
    return table, ""


def _rows(table: pa.Table | None, damage: str, journal: Journal) -> tuple[dict[str, Row], dict[str, Row]]:
    """The rows of a journal, and those that only the parquet file has: of an older sweep, or a damaged journal.

    Raises:
        UserError: neither can be read.
    """
    rows = latest(journal.news())
    if table is None:
        if not rows and (damage or journal.spoiled):
            raise UserError(damage or f"{journal.path} cannot be read (no line of it is a row); restore it")
        if rows:
            _LOGGER.warning(
                "%s: the rows are taken from here; %s",
                journal.path,
                damage.partition(";")[0] or "the parquet file is gone",
            )
        return rows, {}
    others = [place for place, trial in enumerate(table["trial_id"].to_pylist()) if trial not in rows]
    return rows, latest(table.take(pa.array(others, pa.int64())).to_pylist())


def _current(path: Path) -> pa.Table:
    """The parquet file, where it is up to date; else the table that it will be."""
    table, damage = _parquet(path)
    journal = Journal(journal_of(path))
    if table is not None and covered(table) == journal.size():
        return table
    rows, others = _rows(table, damage, journal)
    return table_of([*rows.values(), *others.values()])


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=_NULLABLE.get)
