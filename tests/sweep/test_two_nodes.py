"""One file with a part of each kind, on two Ray nodes of which neither can see it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snnsweep import Sweep

OWN_PARTS = Path(__file__).parents[2] / "search_spaces" / "own_parts.py"
# Each process that executes the space leaves a note: on which node, where it stands, and whether it sees the file. The
# data set is read by the driver alone.
WITNESS = """
import json, os, ray
from pathlib import Path


def note(what):
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "driver"
    seen = {"node": node, "cwd": os.getcwd(), "file": Path("own.py").exists()}
    (Path(NOTES) / f"{what}-{os.getpid()}.json").write_text(json.dumps(seen))


class Witness(Stripes):
    \"\"\"Noisy stripes, whose readers are written down.\"\"\"

    def read(self, folder):
        note("read")
        return super().read(folder)


note("execute")
data.register("witness")(Witness)
FIXED = {"data.name": "witness"}
"""
PATIENCE_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def node(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    folder.mkdir()
    command = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1", *arguments]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def wait_for(log: Path, text: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while text not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.fixture
def two_nodes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each, started in folders of their own."""
    port = free_port()
    sockets = tempfile.mkdtemp()  # a path of a socket has to be short
    address = f"127.0.0.1:{port}"
    nodes = [node(tmp_path / "head", "--head", f"--port={port}", f"--temp-dir={sockets}", "--include-dashboard=false")]
    try:
        wait_for(tmp_path / "head" / "log", "Ray runtime started")
        nodes.append(node(tmp_path / "second", f"--address={address}"))
        wait_for(tmp_path / "second" / "log", "Ray runtime started")
        yield address
    finally:
        for process in reversed(nodes):  # nothing is to be saved, and an orderly end takes half a minute
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)


@pytest.mark.slow
def test_every_kind_of_part_from_one_file(two_nodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, notes = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    notes.mkdir()
    text = OWN_PARTS.read_text().replace('"data.name": "stripes",', '"data.name": "witness",')
    (home / "own.py").write_text(text + WITNESS.replace("NOTES", repr(str(notes))))
    monkeypatch.chdir(home)
    sweep = Sweep("own.py", 4, storage=tmp_path / "sweeps", name="s", data_dir=notes, address=two_nodes).run()

    rows = sweep.results()
    assert rows["status"].tolist() == ["finished"] * 4, rows["cause"].tolist()
    named = {"neuron.name": "leaky", "encoder.name": "contrast", "model.name": "tiny", "data.name": "witness"}
    for key, name in (named | {"train.objective": "smoothed", "attack.suite": "own"}).items():
        assert set(rows[key]) == {name}
    assert rows["robust_accuracy/sign_momentum"].between(0, 1).all()
    assert [note.name for note in notes.glob("read-*")] == [f"read-{os.getpid()}.json"]
    seen = [json.loads(note.read_text()) for note in notes.glob("execute-*")]
    workers = [one for one in seen if one["cwd"] != str(home)]
    assert len({one["node"] for one in workers}) == 2
    assert not any(one["file"] for one in workers)
