"""What reached the journal comes back as it was, whatever happened to other lines."""

import errno
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnsweep.errors import SnnSweepError, UserError
from snnsweep.results.journal import Journal

TEXTS = st.text(st.characters(), max_size=6)  # lone surrogates, line ends and NUL too
CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(TEXTS, max_size=3))
ROWS = st.builds(lambda trial, row: {**row, "trial_id": trial}, TEXTS, st.dictionaries(TEXTS, CELLS, max_size=4))


def exactly(rows: list[dict[str, Any]]) -> Any:
    """Something that is equal only where rows are, bit for bit."""
    return [[(name, type(cell), bits(cell)) for name, cell in row.items()] for row in rows]


def bits(cell: Any) -> Any:
    return ("nan" if math.isnan(cell) else struct.pack("d", cell)) if isinstance(cell, float) else cell


def test_what_bits_tells_apart() -> None:
    assert bits(0.0) != bits(-0.0)
    assert bits(math.nan) == bits(math.nan)
    assert exactly([{"a": True}]) != exactly([{"a": 1}]) != exactly([{"a": 1.0}])


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5))
def test_rows_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    writer = Journal(tmp_path_factory.mktemp("j") / "results.jsonl")
    writer.append(*rows[:2])
    for row in rows[2:]:
        writer.append(row)
    reader = Journal(writer.path)
    assert exactly(reader.news()) == exactly(rows)
    assert exactly(reader.rows()) == exactly(rows)
    assert reader.news() == []
    assert reader.end == reader.size()
    writer.append({"trial_id": "later"})
    assert exactly(reader.rows()) == exactly(rows)
    assert exactly(reader.news()) == exactly([{"trial_id": "later"}])
    assert writer.path.read_bytes().count(b"\n") == len(rows) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3), st.lists(ROWS, min_size=1, max_size=2), st.data())
def test_a_line_cut_short_spoils_no_other(
    tmp_path_factory: pytest.TempPathFactory, before: list[dict[str, Any]], after: list[dict[str, Any]], data: Any
) -> None:
    path = tmp_path_factory.mktemp("j") / "results.jsonl"
    Journal(path).append(*before)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    watching = Journal(path)
    whole = [line for line in content[:cut].split(b"\n") if line.endswith(b"}") and line in content.split(b"\n")]
    kept = before[: len(whole)]
    assert exactly(watching.news()) == exactly(kept)
    for row in after:
        Journal(path).append(row)
    assert exactly(watching.news()) == exactly(after)
    for reader in (watching.rows(), Journal(path).news()):
        assert exactly(reader) == exactly([*kept, *after])


def test_damaged_lines_are_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.jsonl"
    junk = [b'{"trial_id": "t1", "a": 0.', b"\0\0\0", b"[1]", b"{}", b'{"trial_id": 3}', b"\xff\xfe", b"[" * 9999, b""]
    path.write_bytes(b"\n".join([b'{"trial_id": "t0"}', *junk, b'{"trial_id": "t2"}', b'{"trial_id"']))
    journal = Journal(path)
    assert [row["trial_id"] for row in journal.news()] == ["t0", "t2"]
    assert journal.spoiled == 7  # an empty line is none, and the last one may still be written
    assert "passed over: 7" in caplog.text


def test_other_values_have_a_form(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    values = (np.float32(0.5), np.int64(2**60 + 1), np.bool_(True), ("a",), Path("x"), np.float64("nan"))
    journal.append({"trial_id": "t0", **{str(i): value for i, value in enumerate(values)}})
    expected: dict[str, Any] = {"0": 0.5, "1": 2**60 + 1, "2": True, "3": ["a"], "4": "x", "5": math.nan}
    assert exactly(journal.news()) == exactly([{"trial_id": "t0", **expected}])
    with pytest.raises(TypeError, match="given 3"):
        journal.append({"trial_id": 3})
    assert journal.news() == []


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full")])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: Any, number: int, said: str) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    journal.append({"trial_id": "t0"})
    before = journal.path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SnnSweepError) as caught:
            journal.append({"trial_id": "t1"})
    assert said in str(caught.value)
    assert "the row of trial t1 is not written" in str(caught.value)
    assert "nothing that had ended before is lost: free some space" in str(caught.value)
    assert not isinstance(caught.value, UserError)
    assert journal.path.read_bytes() == before


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    journal = Journal(tmp_path / "results.jsonl")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        journal.news()
    with pytest.raises(SnnSweepError, match=r"Is a directory; the row of trial t0 is not written.*: mend that"):
        journal.append({"trial_id": "t0"})


def test_the_row_is_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bytes]] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        synced.append((Path(name).name, Path(name).read_bytes() if os.path.isfile(name) else b""))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    journal = Journal(tmp_path / "results.jsonl")
    journal.append({"trial_id": "t0"})
    assert synced == [("results.jsonl", b'{"trial_id": "t0"}\n'), (tmp_path.name, b"")]
    journal.append({"trial_id": "t1"})
    assert synced[2:] == [("results.jsonl", b'{"trial_id": "t0"}\n{"trial_id": "t1"}\n')]
