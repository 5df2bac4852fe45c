"""The file of calls: nothing that was written whole is ever missed, whatever was cut."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnsweep.tracking.journal import DELIVERED, SPOOL, Journal


def read(journal: Journal, most: int = 10**6) -> list[object]:
    """The next calls, told at once."""
    found: list[object] = []
    while len(found) < most and (call := journal.next()):
        found.append(call["call"])
        journal.done()
    return found


def opened(folder: Path) -> Journal:
    return Journal(folder, "0a1b", warn=pytest.fail)


steps = st.one_of(
    st.tuples(st.just("write"), st.text(max_size=8)),
    st.tuples(st.just("read"), st.integers(0, 4)),
    st.tuples(st.just("die"), st.integers(0, 60)),  # and so many of the last bytes never reached the disk
)


@given(st.lists(steps, max_size=30))
@settings(max_examples=150, deadline=None)
def test_every_whole_line_is_read_once_and_in_order(script: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = opened(folder)
        unread: list[
            tuple[object, int]
        ] = []  # the oracle: calls, and the byte where each is whole (its line's end may lack)
        floor = (folder / SPOOL).stat().st_size
        for step, value in script:
            if step == "write":
                journal.append({"call": value})
                unread.append((value, (folder / SPOOL).stat().st_size - 1))
            elif step == "read":
                assert isinstance(value, int)
                known = [call for call, _ in unread[:value]]
                floor = max([floor, *(end + 1 for _, end in unread[:value])])
                unread = unread[value:]
                assert read(journal, value) == known
            else:
                assert isinstance(value, int)
                there = (folder / SPOOL).stat().st_size
                size = min(there, max(floor, there - value))  # a line's end may lack: no further
                os.truncate(folder / SPOOL, size)
                unread = [(call, end) for call, end in unread if end <= size]
                journal = opened(folder)
            assert journal.left == len(unread)
        assert read(journal) == [call for call, _ in unread]
        assert journal.left == 0
        assert journal.run_id == "0a1b"


def test_a_line_cut_anywhere_spoils_no_other_one(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for name in ("a", "b"):
        journal.append({"call": name, "said": "é\u2028 \n"})
    whole = (tmp_path / SPOOL).read_bytes()
    end_of_a = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(len(whole) + 1):
        (tmp_path / SPOOL).write_bytes(whole[:cut])
        (tmp_path / DELIVERED).unlink(missing_ok=True)
        journal = opened(tmp_path)
        journal.append({"call": "c"})
        kept = ["a"] * (cut >= end_of_a - 1) + ["b"] * (cut >= len(whole) - 1)
        assert (journal.left, read(journal), journal.run_id) == (len(kept) + 1, [*kept, "c"], "0a1b"), cut


@pytest.mark.parametrize("mark", [b"", b"no number", b"99999999999999999999\n"])
def test_a_mark_that_is_lost_costs_only_time(tmp_path: Path, mark: bytes) -> None:
    journal = opened(tmp_path)
    for name in ("a", "b"):
        journal.append({"call": name})
    assert read(journal, 1) == ["a"]
    assert read(opened(tmp_path)) == ["b"]
    (tmp_path / DELIVERED).write_bytes(mark)
    assert read(opened(tmp_path)) == ["a", "b"]


def test_what_is_no_call_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / SPOOL).write_bytes(b'\n[1]\n"call"\n7\n\xff\xfe\n{}\n{"call": "a"}')
    journal = Journal(tmp_path, warn=pytest.fail)
    assert (journal.left, journal.run_id, read(journal)) == (1, None, ["a"])
    assert Journal(tmp_path / "empty", warn=pytest.fail).next() is None


def test_a_call_without_json_is_a_mistake_of_ours(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with pytest.raises(TypeError):
        journal.append({"call": object()})
    with pytest.raises(ValueError, match="JSON"):
        journal.append({"call": float("nan")})
    assert journal.left == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path / "disk")]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_a_full_disk_loses_nothing_once_there_is_room(small_disk: Path) -> None:
    said: list[str] = []
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    journal = Journal(small_disk, "0a1b", said.append)
    names = [f"{i}:" + "x" * 300 for i in range(200)]
    for name in names[:50]:
        journal.append({"call": name})
    assert (read(journal, 10), said) == (names[:10], [])
    for name in names[50:]:  # 24 kB are not enough for them
        journal.append({"call": name})
    assert len(said) == 1
    assert "No space left" in said[0]
    assert journal.left == 190
    on_disk = read(journal)
    assert on_disk == names[10 : 10 + len(on_disk)]
    assert len(on_disk) < 150

    ballast.unlink()
    journal.flush()
    assert read(journal) == names[10 + len(on_disk) :]
    assert (journal.left, len(said)) == (0, 1)
