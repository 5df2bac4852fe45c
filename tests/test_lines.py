"""Lines that a kill or a full disk cuts anywhere."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnsweep import lines

OBJECTS = st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.floats(allow_nan=False), st.text(max_size=9)))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 7)  # many of them in a line


def said(path: Path, start: int = 0) -> list[Any]:
    return [line.said for line in lines.after(path, start)]


@settings(max_examples=60, deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=3), OBJECTS, st.data())
def test_a_cut_costs_the_line_that_it_cuts(tmp_path_factory: Any, before: list[Any], later: Any, data: Any) -> None:
    path = tmp_path_factory.mktemp("l") / "file.jsonl"
    lines.append(path, *map(json.dumps, before))
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert [line.end for line in lines.after(path)] == ends

    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = before[: sum(end - 1 <= cut for end in ends)]  # the line end may be what was cut off
    assert said(path) == whole
    assert lines.ends_whole(path) == (cut == 0 or content[cut - 1 : cut] == b"\n")
    lines.append(path, json.dumps(later))
    assert said(path) == [*whole, later]
    assert all(not line.blank for line in lines.after(path))  # nothing is left of the half line

    path.write_bytes(content[:cut])
    lines.take_off_half(path)
    assert path.read_bytes() == content[: max([0, *(end for end in ends if end <= cut)])]


def test_a_damaged_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n\n[2]\n\xff\n{"a": 3}\n{"a')
    found = list(lines.after(path))
    assert [line.said for line in found] == [{"a": 1}, None, None, None, None, {"a": 3}]
    assert [line.blank for line in found] == [False, False, True, False, False, False]
    assert said(path, found[4].end) == [{"a": 3}]
    assert said(tmp_path / "none.jsonl") == []


def test_a_full_disk_leaves_nothing_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.jsonl"
    lines.append(path, '{"a": 1}', synced=False)
    path.write_bytes(path.read_bytes() + b'{"b"')

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        lines.append(path, '{"a": 2}', '{"a": 3}')
    assert path.read_bytes() == b'{"a": 1}\n'
