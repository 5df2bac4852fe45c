"""An autoscaler's own settings, found on a real head that was started with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from snnsweep.errors import UserError
from snnsweep.sweep import nodes
from snnsweep.sweep.cluster import gpus_of_a_trial, slots
from snnsweep.sweep.nodes import Growth, Kind

SETTINGS = {
    "cluster_name": "growing",
    "max_workers": 3,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 64, "GPU": 64}, "node_config": {}, "max_workers": 0},
        "small": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 3},
        "large": {"resources": {"CPU": 4, "GPU": 2}, "node_config": {}, "max_workers": 2},
    },
    "provider": {"type": "fake_multinode", "head_node_id": "f" * 51 + "00000"},
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{key: [] for key in ("setup_commands", "head_setup_commands", "worker_setup_commands")},
    **{key: [] for key in ("head_start_ray_commands", "worker_start_ray_commands")},
    "file_mounts_sync_continuously": False,
    "upscaling_speed": 1,
    "idle_timeout_minutes": 5,
}


@pytest.fixture(scope="module", autouse=True)
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A head without CPUs, whose autoscaler has nothing to bring yet."""
    file = tmp_path_factory.mktemp("growth") / "ray bootstrap config.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    given = {"num_cpus": 0, "include_dashboard": False, "autoscaling_config": str(file)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_FAKE_CLUSTER", "1")
        head = Cluster(initialize_head=True, head_node_args=given)
        ray.init(head.address, log_to_driver=False)
        yield file
        ray.shutdown()
        head.shutdown()


def test_what_the_autoscaler_may_bring_is_counted() -> None:
    assert nodes.growth() == Growth((Kind(4, 2, 2), Kind(2, 0, 3)), 3, Kind(0, 0))
    assert gpus_of_a_trial(None) == 1
    assert slots(1, 0, None) == 4 + 4 + 2
    assert slots(2, 0, None) == 2 + 2 + 1
    assert slots(1, 0.4, None) == 2 * 4
    assert slots(1, 1, 3) == 3


def test_what_it_may_never_bring_is_refused() -> None:
    with pytest.raises(UserError, match=r"4 GPU.* 4 CPU and 2 GPU; lower --gpus-per-trial$"):
        slots(1, 4, 8)
    with pytest.raises(UserError, match=r"5 CPU .* 4 CPU and 2 GPU; lower --cpus-per-trial$"):
        slots(5, 0, None)


def test_a_driver_on_another_host_asks_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    here = nodes.growth()
    monkeypatch.setattr(nodes, "own", lambda: "elsewhere")
    assert nodes.growth() == here


@pytest.mark.parametrize(
    "text",
    ["- a list", "{unclosed", yaml.safe_dump(SETTINGS | {"available_node_types": {"any": {"max_workers": 2}}})],
)
def test_settings_that_cannot_be_read_are_no_promise(text: str, settings: Path) -> None:
    before = settings.read_text()
    settings.write_text(text)
    try:
        assert nodes.growth() == Growth(told=False)
    finally:
        settings.write_text(before)


def test_an_autoscaler_beside_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """KubeRay sets the variable on every node, and starts no monitor where its own autoscaler runs."""
    look = nodes._monitor()
    assert look("127.0.0.1:1") == {}
    monkeypatch.setenv("RAY_USAGE_STATS_KUBERAY_IN_USE", "1")
    assert look("127.0.0.1:1") is None
    assert look(ray.get_runtime_context().gcs_address) == SETTINGS
