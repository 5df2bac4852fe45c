"""Rows as Arrow columns, of which each has the narrowest type that holds all its values."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from snnsweep.config import DEFAULTS
from snnsweep.results.journal import Row, latest

HEAD, TAIL = (
    ("trial_id", "status"),
    ("hardware", "space_sha256", "epochs", "audit", "audit_checks", "warnings", "cause"),
)
_TEXTS = pa.list_(pa.string())
_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}


class Columns:
    """A growing table with a row per trial. What was converted is kept, so that a new row costs only itself.

    Args:
        reread: gives every row that was added, again. Needed where a trial's row is replaced, and where a column
            becomes text, once for each column: its values are only there as the type that held them until then.

    Attributes:
        places: the row number of each trial.
    """

    def __init__(self, reread: Callable[[], list[Row]]):
        self.places: dict[str, int] = {}
        self._reread, self._arrays, self._new, self._stale = reread, dict[str, pa.Array](), list[Row](), False

    def add(self, row: Row) -> None:
        """Take a row, in the place of an earlier one of the same `trial_id`; keep it as it is until `table`."""
        self._stale |= row["trial_id"] in self.places
        self.places.setdefault(row["trial_id"], len(self.places))
        self._new.append(row)

    def table(self) -> pa.Table:
        """All rows. Columns: the trial, its config, everything else by name, what is long."""
        arrays = None if self._stale else self._extended()
        self._arrays = _arrays(list(latest(self._reread()).values())) if arrays is None else arrays
        self._new, self._stale = [], False
        return pa.table({name: self._arrays[name] for name in _ordered(self._arrays)})

    def _extended(self) -> dict[str, pa.Array] | None:
        """The columns with the new rows; None where one of them has to be made anew."""
        if not self._new:
            return self._arrays
        nothing = pa.nulls(len(self.places) - len(self._new))
        arrays = {}
        for name in self._arrays.keys() | _names(self._new):
            joined = _joined(self._arrays.get(name, nothing), [row.get(name) for row in self._new])
            if joined is None:
                return None
            arrays[name] = joined
        return arrays


def table_of(rows: Iterable[Row]) -> pa.Table:
    """One row per trial."""
    arrays = _arrays(list(rows))
    return pa.table({name: arrays[name] for name in _ordered(arrays)})


def _arrays(rows: Sequence[Row]) -> dict[str, pa.Array]:
    return {name: _column([row.get(name) for row in rows]) for name in _names(rows)}


def _names(rows: Sequence[Row]) -> set[str]:
    return {name for row in rows for name in row}


def _ordered(names: Iterable[str]) -> list[str]:
    names = set(names)
    head, tail = [[n for n in part if n in names] for part in (HEAD, TAIL)]
    config = [name for name in DEFAULTS if name in names]
    return [*head, *config, *sorted(names.difference(head, config, tail)), *tail]


def _column(values: Sequence[Any]) -> pa.Array:
    """One column of the narrowest type that holds every value; where none does, of text.

    The type of a column is that of its parts, or the next one up: nothing < int < float < text, nothing < bool < text,
    nothing < list < text. `_joined` relies on it.
    """
    kinds = {type(value) for value in values if value is not None}
    try:
        if kinds <= {list}:
            lists = [None if value is None else [_text(item) for item in value] for value in values]
            return pa.array(lists, _TEXTS if kinds else pa.null())
        if kinds == {int, float}:
            pa.array([value for value in values if type(value) is int], pa.int64())
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if len(kinds) == 1:
            return pa.array(values, _TYPES[kinds.pop()])
    except (KeyError, OverflowError, UnicodeError, pa.ArrowException):
        pass  # an object, an integer beyond 64 bits, a lone surrogate: text, as for mixed kinds
    return _texts(values)


def _joined(old: pa.Array, values: Sequence[Any]) -> pa.Array | None:
    """`_column` of the values in `old` and of these; None where `old` alone does not tell."""
    new = _column(values)
    if pa.types.is_null(new.type):
        new = pa.nulls(len(new), old.type)
    elif pa.types.is_null(old.type):
        old = pa.nulls(len(old), new.type)
    elif {old.type, new.type} == {pa.int64(), pa.float64()}:
        old, new = (part.cast(pa.float64(), safe=False) for part in (old, new))  # rounds as Python does
    elif pa.types.is_string(old.type):
        new = _texts(values)
    return pa.concat_arrays([old, new]) if old.type == new.type else None


def _texts(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate has no place in parquet
