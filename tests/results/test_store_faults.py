"""Kills, full disks and damaged files: every row that was added is there, once, as it was."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snnsweep.errors import SnnSweepError, UserError
from snnsweep.result import Direction
from snnsweep.results import store
from snnsweep.results.front import front
from snnsweep.results.journal import Journal
from snnsweep.results.store import Store, load_front, load_mixes, load_results

OBJECTIVES: dict[str, Direction] = {"clean_accuracy": "maximize", "robust_accuracy": "maximize"}


def row(number: int, **values: Any) -> dict[str, Any]:
    figures = {"clean_accuracy": number % 17 / 17, "robust_accuracy": -(number % 13) / 13}
    layers = {f"gradient_sparsity/zero_share/{layer}": number / (layer + 1) for layer in range(20)}
    head = {"trial_id": f"t{number:04d}", "status": "finished", "seed": number}
    return {**head, **figures, **layers, "epochs": number, "warnings": [str(number)], "cause": "", **values}


def filled(folder: Path, count: int = 5, **settings: Any) -> Store:
    rows = Store(folder, {"a": 1}, objectives=OBJECTIVES, **settings)
    for number in range(count):
        rows.add(row(number))
    rows.flush()
    return rows


def same_rows(found: pd.DataFrame, numbers: Any) -> None:
    """Each cell of the rows of `numbers`, in that order, and no other row."""
    expected = [row(number) for number in numbers]
    assert found["trial_id"].tolist() == [each["trial_id"] for each in expected]
    for name in row(0):
        cells = [list(cell) if isinstance(cell, np.ndarray) else cell for cell in found[name]]
        assert cells == [each[name] for each in expected], name


WRITERS = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store_faults import OBJECTIVES, row
from snnsweep.results.store import Store
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the writers
for line in sys.stdin:  # one import for all of them
    folder, begin, pipe = json.loads(line)
    child = os.fork()
    if not child:
        said = os.open(pipe, os.O_WRONLY)
        rows = Store(Path(folder), {"a": 1}, objectives=OBJECTIVES)
        for number in range(begin, 100_000):
            rows.add(row(number))
            os.write(said, b"%d\\n" % number)
    print(child, flush=True)
"""


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, int], tuple[int, int]]]:
    """Starts a process that adds rows from a number on: its id, and a pipe by which it says the numbers."""
    pipe = tmp_path_factory.mktemp("said") / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", WRITERS, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        assert writers.stdin
        assert writers.stdout

        def start(folder: Path, begin: int) -> tuple[int, int]:
            print(json.dumps([str(folder), begin, str(pipe)]), file=writers.stdin, flush=True)
            return int(writers.stdout.readline()), os.open(pipe, os.O_RDONLY)

        yield start
        writers.stdin.close()


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_random_moments_with_a_reader_beside(
    tmp_path: Path, seed: int, writer: Callable[[Path, int], tuple[int, int]]
) -> None:
    """The writer says a number when its row's `add` has returned; such a row is there for every reader from then on."""
    pause, begin = random.Random(seed), 0
    for _ in range(2):
        process, pipe = writer(tmp_path, begin)
        with os.fdopen(pipe, "rb") as saying:
            said = int(saying.readline())
            os.set_blocking(pipe, False)
            deadline, rest = time.monotonic() + pause.uniform(0.02, 0.4), b""
            while time.monotonic() < deadline:
                rest += saying.read() or b""
                said = int(rest.split(b"\n")[-2]) if b"\n" in rest else said
                seen = load_results(tmp_path)
                assert len(seen) > said
                same_rows(seen, range(len(seen)))
            os.kill(process, signal.SIGKILL)
            os.set_blocking(pipe, True)
            rest += saying.read()  # until the process is gone
            said = int(rest.split(b"\n")[-2]) if b"\n" in rest else said
        before = load_results(tmp_path)
        assert said < len(before) <= said + 2  # one may have been on the disk that was not said yet
        rows = Store(tmp_path, objectives=OBJECTIVES)
        pd.testing.assert_frame_equal(rows.frame(), before)
        same_rows(before, range(len(before)))
        pd.testing.assert_frame_equal(load_front(tmp_path), front(before, OBJECTIVES))
        begin = len(before)
    assert {path.name for path in tmp_path.iterdir()} >= {"results.jsonl", "results.parquet", "front.parquet"}
    assert not list(tmp_path.glob(".results*.tmp"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_parquet_file_is_made_anew(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with a byte changed anywhere: no wrong row, and no refusal."""
    whole = tmp_path / "whole"
    if not whole.exists():
        whole.mkdir()
        filled(whole)
    folder = tmp_path / "sweep"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    content = bytearray((folder / "results.parquet").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    (folder / "results.parquet").write_bytes(content)
    same_rows(load_results(folder), range(5))
    rows = Store(folder, objectives=OBJECTIVES)
    same_rows(rows.frame(), range(5))
    assert (folder / "results.parquet").read_bytes() != content
    same_rows(pq.read_table(folder / "results.parquet").to_pandas(), range(5))


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path)
    content = (tmp_path / "results.parquet").read_bytes()
    for place in range(8, len(content) // 2, len(content) // 80):  # the columns; names and types come last
        (tmp_path / "results.parquet").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        same_rows(load_results(tmp_path), range(5))


def test_what_is_up_to_date_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path).add(row(5, flag=True, seed=None, nothing=None))
    store.write_json(tmp_path / "sweep.json", {})

    def unasked(*args: object) -> None:
        raise AssertionError("the parquet file has all")

    content = (tmp_path / "results.parquet").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_table", unasked)
        Store(tmp_path)
        patched.setattr(Journal, "news", unasked)
        assert len(load_results(tmp_path)) == 6
        assert len(load_front(tmp_path)) > 0
    assert (tmp_path / "results.parquet").read_bytes() == content


def test_what_is_made_anew_is_said_and_both_gone_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    before, journal = load_results(tmp_path), (tmp_path / "results.jsonl").read_bytes()
    for damage in ("gone", "empty", "junk", "other"):
        caplog.clear()
        (tmp_path / "results.parquet").unlink()
        if damage == "other":
            pq.write_table(pa.table({"x": [1]}), tmp_path / "results.parquet")
        elif damage != "gone":
            (tmp_path / "results.parquet").write_bytes(b"PAR1 half" if damage == "junk" else b"")
        pd.testing.assert_frame_equal(load_results(tmp_path), before)
        pd.testing.assert_frame_equal(Store(tmp_path, {"a": 1}).frame(), before)
        assert "gone" in caplog.text if damage == "gone" else "cannot be read" in caplog.text
        assert [record.name for record in caplog.records] == 2 * ["snnsweep"]
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        assert json.loads(pq.read_schema(tmp_path / "results.parquet").metadata[b"snnsweep"]) == {"a": 1}
    assert (tmp_path / "results.jsonl").read_bytes() == journal
    for parquet, lines in ((b"PAR1 half", b""), (b"PAR1 half", b"{half\n"), (None, b"{half\n{half\n")):
        (tmp_path / "results.jsonl").write_bytes(lines)
        (tmp_path / "results.parquet").unlink()
        if parquet:
            (tmp_path / "results.parquet").write_bytes(parquet)
        for use in (load_results, Store):
            with pytest.raises(UserError, match=r"results\.\w+ cannot be read") as caught:
                use(tmp_path)
            assert "\n" not in str(caught.value)
        (tmp_path / "results.parquet").touch()


def test_a_journal_that_was_cut_in_its_first_line_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b'{"trial_id": "t0')
    assert load_results(tmp_path).columns.tolist()[:2] == ["trial_id", "status"]
    rows = Store(tmp_path)
    rows.add(row(0))
    rows.add(row(1))
    same_rows(load_results(tmp_path), range(2))
    same_rows(Store(tmp_path).frame(), range(2))


def test_a_damaged_front_is_found_again(tmp_path: Path) -> None:
    (tmp_path / ".results.parquet.1.tmp").write_bytes(b"half, of one that was killed")
    rows = filled(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
    names = ("mlflow_experiment_id", "name", "smoke", "status", "tracking_uri")
    expected = front(load_results(tmp_path), OBJECTIVES)
    assert 0 < len(expected) == rows.front_size
    written = (tmp_path / "front.parquet").read_bytes()
    store.write_json(tmp_path / "sweep.json", dict.fromkeys(names, "") | {"objectives": OBJECTIVES})
    for content in (written, b"PAR1 half", None):
        (tmp_path / "front.parquet").unlink()
        if content is not None:
            (tmp_path / "front.parquet").write_bytes(content)
        pd.testing.assert_frame_equal(load_front(tmp_path), expected)
    (tmp_path / "front.parquet").write_bytes(written)
    Store(tmp_path).add(row(99, clean_accuracy=9.0, robust_accuracy=9.0))  # by one that keeps no front
    assert load_front(tmp_path)["trial_id"].tolist() == ["t0099"]


@pytest.mark.parametrize("file", [store.RESULTS, store.MIXES])
def test_an_older_sweep_gets_a_journal(tmp_path: Path, file: str) -> None:
    load = load_results if file == store.RESULTS else load_mixes
    cells = {
        "trial_id": ["t0", "t1", "t2"],
        "status": ["finished", "failed", "stopped"],
        "data.subset": [None, 2**53 + 1, 3],
        "neuron.detach_reset": [True, None, False],
        "clean_accuracy": [0.1 + 0.2, None, float("nan")],
        "neuron.tau": ["2.0", "a?", None],
        "nothing": [None, None, None],
        "warnings": [["few"], [], None],
    }
    pq.write_table(pa.table(cells).replace_schema_metadata({"snnsweep": '{"b": 2}'}), tmp_path / file)
    content = (tmp_path / file).read_bytes()
    before = load(tmp_path)
    assert (tmp_path / file).read_bytes() == content
    assert not list(tmp_path.glob("*.jsonl"))  # a reader writes nothing
    Store(tmp_path, file=file)
    stored = pq.read_table(tmp_path / file)
    for name, column in cells.items():
        assert repr(stored[name].to_pylist()) == repr(column)  # NaN is not None
    assert stored.schema.metadata[b"snnsweep"] == b'{"b": 2}'
    again = load(tmp_path)
    pd.testing.assert_frame_equal(again[before.columns], before)
    (tmp_path / file).unlink()
    pd.testing.assert_frame_equal(load(tmp_path), again)  # from the journal alone


def test_rows_that_the_journal_lost_come_back_from_the_parquet_file(tmp_path: Path) -> None:
    filled(tmp_path)
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join([lines[0], b"\0" * len(lines[1]) + b"\n", *lines[2:]]))
    with (tmp_path / "results.jsonl").open("a") as journal:
        print(json.dumps(row(4, clean_accuracy=0.5)), file=journal)
    for found in (load_results(tmp_path), Store(tmp_path).frame(), load_results(tmp_path)):
        assert found["trial_id"].tolist() == ["t0000", "t0002", "t0003", "t0004", "t0001"]
        assert found["clean_accuracy"].tolist()[3] == 0.5  # the journal has the last word
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])["trial_id"] == "t0001"


def test_rows_that_somebody_took_out_of_the_parquet_file_are_still_there(tmp_path: Path) -> None:
    filled(tmp_path)
    table = pq.read_table(tmp_path / "results.parquet")
    other = table.rename_columns(["epoch" if name == "epochs" else name for name in table.column_names])
    for changed in (table.slice(1), other):
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), tmp_path / "results.parquet")
        same_rows(load_results(tmp_path), range(5))
    same_rows(Store(tmp_path).frame(), range(5))


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Two mixes at once; each had read the folder before the other wrote."""
    one, other = (Store(tmp_path, file=store.MIXES) for _ in range(2))
    one.add(row(0))
    other.add(row(1))
    one.add(row(2))
    store.write_json(tmp_path / "sweep.json", {})
    same_rows(load_mixes(tmp_path), range(3))
    assert pq.read_table(tmp_path / "mixes.parquet").num_rows == 3
    assert not (tmp_path / "results.jsonl").exists()


def test_the_parquet_files_take_a_bounded_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: a write takes 0.3 s, a row comes every 0.1 s."""
    clock, writes = [0.0], list[float]()
    write = store.write_table

    def slow(path: Path, *args: Any) -> None:
        write(path, *args)
        if path.name == store.RESULTS:
            clock[0] += 0.3
            writes.append(clock[0])

    monkeypatch.setattr(store, "monotonic", lambda: clock[0])
    monkeypatch.setattr(store, "write_table", slow)
    rows = Store(tmp_path, objectives=OBJECTIVES)
    for number in range(400):
        rows.add(row(number))
        clock[0] += 0.1
    assert writes[:4] == pytest.approx([0.3, 0.7, 1.1, 1.5])  # at once, while some of the first second is left
    gaps = np.diff(writes[5:])
    assert len(gaps) > 3
    assert ((gaps > 5.8) & (gaps < 6.2)).all()  # 20 x 0.3 s, give or take a row
    assert pq.read_table(tmp_path / "results.parquet").num_rows < 400
    assert len(load_results(tmp_path)) == 400
    clock[0] += 3600  # an hour without rows buys a second's worth of writes, no more
    before = len(writes)
    for number in range(400, 412):
        rows.add(row(number))
    assert len(writes) == before + 4
    rows.flush()
    rows.flush()
    assert len(writes) == before + 5
    same_rows(pq.read_table(tmp_path / "results.parquet").to_pandas(), range(412))
    pd.testing.assert_frame_equal(load_front(tmp_path), front(rows.frame(), OBJECTIVES))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def until_full(rows: Store) -> tuple[int, SnnSweepError]:
    """The first number that could not be added, and why."""
    for number in range(1000):
        try:
            rows.add(row(number))
        except SnnSweepError as error:
            return number, error
    raise AssertionError("the disk is not full")


def test_a_full_disk_loses_nothing_that_had_ended(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"\0" * 50_000)
    rows = Store(tiny_disk, {"a": 1}, objectives=OBJECTIVES)
    number, said = until_full(rows)
    assert said.exit_code == 1
    assert f"the disk is full; the row of trial t{number:04d} is not written, but nothing that had ended" in str(said)
    assert number > 10
    assert "the disk is full; it will be written later" in caplog.text  # the parquet files, which need more, came first
    with pytest.raises(SnnSweepError, match="the disk is full"):
        rows.add(row(number))
    for found in (rows.frame(), load_results(tiny_disk)):
        same_rows(found, range(number))
    assert 0 < pq.read_table(tiny_disk / "results.parquet").num_rows < number  # an old one, whole
    with pytest.raises(SnnSweepError, match="the disk is full; it is not up to date, but nothing is lost"):
        rows.flush()
    full = Store(tiny_disk, objectives=OBJECTIVES)  # a resume before anybody made room
    same_rows(full.frame(), range(number))
    ballast.unlink()
    rows.add(row(number))
    rows.flush()
    same_rows(pq.read_table(tiny_disk / "results.parquet").to_pandas(), range(number + 1))
    same_rows(Store(tiny_disk).frame(), range(number + 1))
    assert not list(tiny_disk.glob(".*.tmp"))
