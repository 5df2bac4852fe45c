"""How many trials a cluster holds and what its hosts see, without one."""

from pathlib import Path

import pytest

from snnsweep.errors import UserError
from snnsweep.sweep import cluster, nodes, storage
from snnsweep.sweep.cluster import slots
from snnsweep.sweep.nodes import Growth, Kind
from snnsweep.sweep.storage import check_checkpoints, local_folder


def has(monkeypatch: pytest.MonkeyPatch, *kinds: Kind, growth: Growth) -> None:
    monkeypatch.setattr(cluster, "_now", lambda: list(kinds))
    monkeypatch.setattr(nodes, "growth", lambda: growth)


def test_a_cluster_that_may_grow_untold_is_not_taken_for_what_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under KubeRay with one worker left: it would have been one trial at a time for the whole sweep."""
    has(monkeypatch, Kind(0, 0), Kind(4, 1), growth=Growth(told=False))
    with pytest.raises(
        UserError, match=r"are up hold 2 trials of 1 CPU and 0.5 GPU, .* say --max-concurrent: the nodes"
    ):
        slots(1, 0.5, None)
    assert slots(1, 0.5, 16) == 16


@pytest.mark.parametrize(
    ("cpus", "gpus", "options"),
    [(1, 0.3, "--cpus-per-trial or --gpus-per-trial"), (9, 0.3, "--cpus-per-trial"), (1, 2, "--gpus-per-trial")],
)
def test_what_to_lower_is_always_said(cpus: float, gpus: float, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a device holds no share of one; and an autoscaler may know a kind of which it brings none."""
    has(monkeypatch, Kind(8, 0.5), growth=Growth((Kind(64, 64, 0),), 3, Kind(0, 0)))
    with pytest.raises(UserError, match=rf"has 8 CPU and 0.5 GPU; lower {options}$"):
        slots(cpus, gpus, None)


def test_a_folder_that_is_given_as_a_uri_is_held_to_what_is_asked_of_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = ("/a/b", "file:///a/b", "s3://bucket/a", "gs://bucket/a")
    assert [local_folder(uri) for uri in given] == [Path("/a/b"), Path("/a/b"), None, None]
    alone = [{"NodeID": "n", "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "head", "Resources": {"CPU": 8}}]
    monkeypatch.setattr(nodes, "alive", lambda: alone)
    monkeypatch.setattr(nodes, "own", lambda: "n")
    monkeypatch.setattr(storage, "MOUNTS", tmp_path / "mounts")
    storage.MOUNTS.write_text("/dev/sda1 / ext4 rw 0 0\n")
    has(monkeypatch, Kind(8, 0), growth=Growth())
    check_checkpoints(f"file://{tmp_path}/new")
    has(monkeypatch, Kind(8, 0), growth=Growth(told=False))
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        with pytest.raises(UserError, match=rf"^--checkpoints {tmp_path}: the cluster may grow, .*\(ext4\)"):
            check_checkpoints(uri)
    storage.MOUNTS.write_text("server:/x / nfs4 rw 0 0\n")
    check_checkpoints(str(tmp_path))
