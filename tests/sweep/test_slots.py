"""How many trials a cluster holds, without one."""

import pytest

from snnsweep.errors import UserError
from snnsweep.sweep import cluster, nodes
from snnsweep.sweep.cluster import slots
from snnsweep.sweep.nodes import Growth, Kind


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
