"""A table that grows is the table of all its rows, whatever comes when."""

import math
from typing import Any

import pandas as pd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snnsweep.results.columns import Columns, table_of
from snnsweep.results.journal import latest

INTEGERS = st.one_of(st.integers(-3, 3), st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**70, 10**400]))
TEXTS = st.one_of(st.text(max_size=3), st.just("\udcff"))
CELLS = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(), TEXTS, st.lists(TEXTS, max_size=2))
ROWS = st.fixed_dictionaries(
    {"trial_id": st.integers(0, 30).map("t{}".format)},
    optional={
        "seed": INTEGERS,
        "b": CELLS,
        "a": CELLS,
        "epochs": st.one_of(st.integers(), st.floats()),
        "cause": CELLS,
    },
)


@settings(deadline=None)
@example([[{"trial_id": "t0", "a": 2**53 + 1}], [{"trial_id": "t1", "a": 0.5}], [{"trial_id": "t2", "a": "x"}]])
@example([[{"trial_id": "t0", "a": 2**70}], [{"trial_id": "t1", "a": 0.5}]])
@example([[{"trial_id": "t0", "a": "x"}], [{"trial_id": "t0"}], [{"trial_id": "t1", "a": 1}]])
@example(
    [[{"trial_id": "t0", "a": None}], [{"trial_id": "t1", "a": [], "b": 1.5}], [{"trial_id": "t2", "b": math.nan}]]
)
@given(st.lists(st.lists(ROWS, max_size=4), max_size=5))
def test_growing_is_building_anew(steps: list[list[dict[str, Any]]]) -> None:
    rows: list[dict[str, Any]] = []
    growing = Columns(lambda: rows)
    for step in steps:
        for row in step:
            rows.append(row)
            growing.add(row)
        expected, found = table_of(latest(rows).values()), growing.table()
        assert found.schema == expected.schema
        pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
        if rows:
            assert [growing.places[trial] for trial in found["trial_id"].to_pylist()] == list(range(len(found)))


def test_only_what_is_new_is_converted() -> None:
    """Rows are read again for a row that is replaced, and once for a column that becomes text."""
    asked: list[int] = []
    rows: list[dict[str, Any]] = []

    def reread() -> list[dict[str, Any]]:
        asked.append(len(rows))
        return rows

    growing = Columns(reread)
    for i, value in enumerate([None, 1, 2.5, None, 3, "x", 4, True, "y"]):
        rows.append({"trial_id": f"t{i}", "a": value, f"b{i}": i})
        growing.add(rows[-1])
        growing.table()
    assert asked == [6]
    rows.append({"trial_id": "t0", "a": 7})
    growing.add(rows[-1])
    growing.table()
    growing.table()
    assert asked == [6, 10]
    assert growing.table()["a"].to_pylist() == ["7", "1", "2.5", None, "3", "x", "4", "True", "y"]
