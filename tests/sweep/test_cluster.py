"""How many trials a cluster holds and what its hosts see, on two nodes with addresses of their own."""

import os
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread

import pytest
import ray
from hypothesis import example, given
from hypothesis import strategies as st
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put
from ray.util.placement_group import placement_group, remove_placement_group

from snnsweep.errors import SnnSweepError, UserError
from snnsweep.sweep import nodes, storage
from snnsweep.sweep.cluster import gpus_of_a_trial, slots, start_here
from snnsweep.sweep.nodes import Growth, Kind
from snnsweep.sweep.storage import check_checkpoints, check_storage


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tmp_path_factory.mktemp("head"), tmp_path_factory.mktemp("other")


@pytest.fixture(scope="module", autouse=True)
def cluster(folders: tuple[Path, Path]) -> Iterator[None]:
    """Two nodes, of 6 CPU and 2 GPU and of 2 CPU, each started in a folder of its own."""
    before = Path.cwd()
    os.chdir(folders[0])
    both = Cluster(initialize_head=True, head_node_args={"num_cpus": 6, "num_gpus": 2, "include_dashboard": False})
    os.chdir(folders[1])
    both.add_node(num_cpus=2, node_ip_address="127.0.0.2")
    os.chdir(folders[0])
    ray.init(both.address, log_to_driver=False)
    yield
    ray.shutdown()
    both.shutdown()
    os.chdir(before)


def grows(monkeypatch: pytest.MonkeyPatch, growth: Growth) -> None:
    monkeypatch.setattr(nodes, "growth", lambda: growth)


# How many


def packed(cpus: int, devices: list[int], of_cpus: int, of_gpus: int) -> int:
    """Trials that were placed, one after the other; a whole device is 10,000."""
    count, cpus = 0, cpus * 10_000
    while cpus >= of_cpus:
        free = [index for index, left in enumerate(devices) if left >= min(of_gpus, 10_000)]
        if of_gpus > 10_000:
            free = [index for index, left in enumerate(devices) if left == 10_000]
        wanted = -(-of_gpus // 10_000)
        if len(free) < wanted:
            break
        for index in free[:wanted]:
            devices[index] -= min(of_gpus, 10_000)
        cpus, count = cpus - of_cpus, count + 1
    return count


@example(9, 2, 1, 4_000)  # two on each device, not five on both
@example(9, 3, 1, 3_333)
@given(
    st.integers(0, 9),
    st.integers(0, 4),
    st.integers(1, 4),
    st.one_of(st.integers(1, 9_999), st.sampled_from([0, 1_000, 3_333, 10_000, 20_000, 30_000])),
)
def test_a_node_holds_what_can_be_placed_on_it(cpus: int, gpus: int, of_cpus: int, of_gpus: int) -> None:
    expected = packed(cpus, [10_000] * gpus, of_cpus * 10_000, of_gpus)
    assert Kind(cpus, gpus).fits(of_cpus, of_gpus / 10_000) == expected


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)), max_size=3),
    st.integers(0, 5),
    st.none() | st.builds(Kind, st.integers(0, 4), st.integers(0, 1)),
    st.sampled_from([0, 0.5, 1]),
)
def test_a_grown_cluster_holds_what_its_best_nodes_hold(
    kinds: list[tuple[int, int, int]], most: int, head: Kind | None, gpus: float
) -> None:
    growth = Growth(tuple(Kind(*kind) for kind in kinds), most, head)
    choices = product(*(range(count + 1) for *_, count in kinds))
    held = [
        sum(kind.fits(1, gpus) * number for kind, number in zip(growth.kinds, choice, strict=True))
        for choice in choices
        if sum(choice) <= most
    ]
    assert growth.fits(1, gpus) == max(held) + (head.fits(1, gpus) if head else 0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "count"), [(2, 0, 4), (1, 0, 8), (4, 0, 1), (1, 0.4, 4), (1, 1, 2), (3, 0.5, 2)]
)
def test_as_many_as_ray_places(cpus: int, gpus: float, count: int) -> None:
    assert slots(cpus, gpus, None) == count
    trials = [placement_group([{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}]) for _ in range(count)]
    try:
        placed, _ = ray.wait([trial.ready() for trial in trials], num_returns=count, timeout=600)
        assert len(placed) == count
        more = placement_group([{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}])
        trials.append(more)
        assert not more.wait(0.5)
    finally:
        for trial in trials:
            remove_placement_group(trial)


def test_the_user_may_want_fewer() -> None:
    assert [slots(1, 0, most) for most in (1, 3, 9)] == [1, 3, 8]


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (7, 0, "asks for 7 CPU and 0 GPU, all on one node, but .* 6 CPU and 2 GPU; lower --cpus-per-trial$"),
        (1, 3, "largest node .* 6 CPU and 2 GPU; lower --gpus-per-trial$"),
        (8, 4, "lower --cpus-per-trial and --gpus-per-trial$"),
        (1, 1.5, "1.5: a trial has a share of one GPU or whole GPUs; allowed: 0 to 1, 2"),
    ],
)
def test_a_trial_that_never_fits_is_refused_at_once(cpus: int, gpus: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        slots(cpus, gpus, 5)


def test_a_gpu_for_a_trial_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [gpus_of_a_trial(given) for given in (None, 0, 0.25, 2)] == [1, 0, 0.25, 2]
    plain = [node for node in nodes.alive() if "GPU" not in node["Resources"]]
    monkeypatch.setattr(nodes, "alive", lambda: plain)
    assert gpus_of_a_trial(None) == 0
    grows(monkeypatch, Growth((Kind(2, 1, 1),), 1))
    assert gpus_of_a_trial(None) == 1
    grows(monkeypatch, Growth(told=False))
    with pytest.raises(UserError, match="--gpus-per-trial, 0 for trials on the CPU"):
        gpus_of_a_trial(None)


# What an autoscaler may bring


def test_without_an_autoscaler_nothing_comes() -> None:
    assert nodes.growth() == Growth()


def test_what_the_platform_reports() -> None:
    where = (ray._raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY, ray._raylet.GCS_AUTOSCALER_STATE_NAMESPACE)
    config = autoscaler_pb2.ClusterConfig()
    config.node_group_configs.add(resources={"CPU": 8, "GPU": 2}, min_count=0, max_count=3, name="gpu")
    try:
        _internal_kv_put(where[0], config.SerializeToString(), namespace=where[1])
        assert nodes.growth() == Growth((Kind(8, 2, 3),), 3)
        assert slots(8, 1, None) == 3
        config.node_group_configs[0].max_count = -1
        _internal_kv_put(where[0], config.SerializeToString(), namespace=where[1])
        assert nodes.growth() == Growth(told=False)
    finally:
        _internal_kv_del(where[0], namespace=where[1])


def test_no_node_is_up_and_nobody_tells_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    grows(monkeypatch, Growth(told=False))
    assert slots(8, 1, 16) == 16
    with pytest.raises(UserError, match=r"are up hold 8 trials of 1 CPU and 0 GPU, .* say --max-concurrent"):
        slots(1, 0, None)
    with pytest.raises(UserError, match=r"are up hold 0 trials of 8 CPU and 1 GPU, .* say --max-concurrent"):
        slots(8, 1, None)


# What the hosts see. /proc/self/cwd is another folder for the processes of each node.

OWN = Path("/proc/self/cwd")


def test_a_folder_that_every_host_sees(tmp_path: Path) -> None:
    check_storage(tmp_path / "to" / "come")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_one_host_does_not_see(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"not every host .*: .*127\.0\.0\.2.* does not see it; .*NFS.*s3://") as found:
        check_storage(OWN / "sweeps")
    assert ray.util.get_node_ip_address() not in str(found.value)
    assert not [file for folder in folders for file in folder.iterdir()]


def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def dead() -> int:
        os._exit(1)

    (other,) = [node["NodeID"] for node in nodes.alive() if node["NodeID"] != nodes.own()]
    assert nodes.ask([other, nodes.own()], lambda: os.getcwd()).keys() == {other, nodes.own()}
    assert nodes.ask([other, "0" * 56], lambda: 7) == {other: 7}
    assert nodes.ask([other], dead) == {}
    monkeypatch.setattr(nodes, "ANSWER_S", 0.001)
    with pytest.raises(UserError, match=r"127\.0\.0\.2.* did not answer in 0.001 s"):
        check_storage(tmp_path)


MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /home ext4 rw 0 0
server:/x /home/shared nfs4 rw 0 0
tmpfs /with\\040space tmpfs rw 0 0
autofs /late autofs rw 0 0
server:/late /late lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/a", "overlay"), ("/home/me", "ext4"), ("/home/shared/s", None), ("/with space/s", "tmpfs"), ("/late/s", None)],
)
def test_where_hosts_may_come_the_file_system_decides(
    folder: str, kind: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(storage, "MOUNTS", tmp_path / "mounts")
    alone = [node for node in nodes.alive() if node["NodeID"] == nodes.own()]
    monkeypatch.setattr(nodes, "alive", lambda: alone)
    check_storage(Path(folder))
    grows(monkeypatch, Growth((Kind(2, 0),), 1))
    check_storage(Path(folder))
    for growth in (Growth((Kind(2, 0, 3),), 1, Kind(2, 0)), Growth(told=False)):
        grows(monkeypatch, growth)
        if kind is None:
            check_storage(Path(folder))
        else:
            with pytest.raises(UserError, match=rf"{re.escape(folder)}: the cluster may grow.*\({kind}\)"):
                check_storage(Path(folder))


# Where checkpoints go


def test_checkpoints_in_a_folder(tmp_path: Path) -> None:
    check_checkpoints(f"file://{tmp_path}/new")
    assert [file.name for file in tmp_path.rglob("*")] == ["new"]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ftp://host/path", "Unrecognized filesystem type"),
        ("sweeps", "has empty scheme"),
        ("file:///proc/version/x", "Cannot create directory"),
        ("file:///proc", "Failed to open"),
    ],
)
def test_checkpoints_that_go_nowhere(uri: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^--checkpoints {uri}: .*{reason}.*allowed: s3://") as found:
        check_checkpoints(uri)
    assert "\n" not in str(found.value)


class Bucket(BaseHTTPRequestHandler):
    """As much of S3 as a small file needs; `status` of its server answers whatever is asked."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        text = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if "uploads" not in self.path or self.command == "HEAD":
            text = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        self.send_response(404 if "extremelyunlikely" in self.path else self.server.status)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.asked, server.status = [], 200
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(bucket: ThreadingHTTPServer) -> str:
    return f"s3://bucket/p?scheme=http&endpoint_override=127.0.0.1:{bucket.server_port}"


def test_checkpoints_in_a_bucket(bucket: ThreadingHTTPServer) -> None:
    check_checkpoints(address(bucket))
    written = [asked.partition(" ")[2] for asked in bucket.asked if asked.startswith("PUT /bucket/p/.snnsweep-")]
    assert len(written) == 1
    assert f"DELETE {written[0]}" in bucket.asked


@pytest.mark.parametrize(("status", "reason"), [(403, "ACCESS_DENIED"), (404, "Bucket 'bucket' not found")])
def test_a_bucket_that_refuses(status: int, reason: str, bucket: ThreadingHTTPServer) -> None:
    bucket.status = status
    with pytest.raises(UserError, match=rf"--checkpoints s3://bucket/p.*: .*{reason}"):
        check_checkpoints(address(bucket))


def test_a_bucket_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BUCKET_S", 0.2)
    with pytest.raises(UserError, match=r"--checkpoints s3://bucket/p.*: no answer in 0.2 s"):
        check_checkpoints("s3://bucket/p?scheme=http&endpoint_override=127.0.0.1:9")


@pytest.mark.parametrize("secret", ["s3://key:secret@bucket/p?", "s3://bucket/p?secret_key=secret&"])
def test_an_address_with_credentials_is_refused_before_anything_is_tried(
    secret: str, bucket: ThreadingHTTPServer
) -> None:
    with pytest.raises(UserError, match=r"\*\*\*.*: credentials come from the environment") as found:
        check_checkpoints(f"{secret}scheme=http&endpoint_override=127.0.0.1:{bucket.server_port}")
    assert "secret@" not in str(found.value)
    assert "=secret" not in str(found.value)
    assert bucket.asked == []


@pytest.mark.parametrize(("late", "starts"), [(0, 1), (2, 3), (3, 3)])
def test_a_busy_machine_is_given_more_time(late: int, starts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives its own servers half a minute, and raises a bare Exception then."""
    tried: list[object] = []

    def init(**settings: object) -> None:
        tried.append(settings["num_cpus"])
        if len(tried) <= late:
            raise Exception("The current node timed out during startup.\nAnd more")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if late < starts:
        start_here(num_cpus=2)
    else:
        with pytest.raises(SnnSweepError, match=r"Ray does not start on this machine: The current .* startup\.$"):
            start_here(num_cpus=2)
    assert tried == [2] * starts


def test_what_keeps_ray_from_starting_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(SnnSweepError, match="does not start on this machine: no"):
        start_here()
