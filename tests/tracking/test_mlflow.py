"""The tracker against real MLflow: an embedded sqlite, and a server in a process of its own."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run

from snnsweep.errors import UserError
from snnsweep.tracking.address import redacted, server_command
from snnsweep.tracking.mlflow import Tracker

FRONT = pd.DataFrame({"trial_id": ["t1", "t0"], "clean_accuracy": [0.9, 0.5], "time/train_s": [3.0, 1.0]})
OBJECTIVES = {"clean_accuracy": "maximize", "time/train_s": "minimize"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A database and an artifact folder; making MLflow's tables takes seconds, so that the tests share them."""
    folder = tmp_path_factory.mktemp("sweeps")
    return f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"


@pytest.fixture
def tracker(embedded: tuple[str, Path], request: pytest.FixtureRequest) -> Tracker:
    tracker = Tracker(embedded[0], request.node.name, embedded[1], warn=pytest.fail)
    tracker.connect()
    return tracker


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(folder: Path, database: str, artifacts: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    port = free_port()
    command = server_command(database, artifacts, port)
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # half a dozen processes that nobody needs
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                over = process.poll() is not None or time.monotonic() > until
                assert not over, (folder / "server.log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """The server and the workers that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(timeout=10)


def children(client: MlflowClient, sweep: str) -> dict[str, Run]:
    run = client.get_run(sweep)
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{sweep}'")
    return {child.data.tags["snnsweep.trial_id"]: child for child in found}


def test_a_sweep_is_a_run_with_a_run_for_each_trial(tracker: Tracker, embedded: tuple[str, Path]) -> None:
    client = MlflowClient(tracking_uri=embedded[0])
    sweep = tracker.start_sweep("threshold-1", {"commit": "abc"}, {"trials": 4}, "does a threshold help?")
    assert sweep is not None
    many = {f"key.{i:03d}": i for i in range(130)}
    tracker.start_trial("t0", "t0000", {**many, "none": None, "long": "x" * 7000})
    tracker.log_epoch("t0", 1, {"loss": 2.0, "gone": math.nan, "wild": math.inf})
    tracker.log_epoch("t0", 2, {"loss": 1.0, "robust_accuracy/my@attack": 0.25})
    tracker.end_trial("t0", "finished", {f"layer/{i:04d}": i for i in range(1100)}, ["few samples", "noise"], "")
    tracker.end_trial("never started", "failed", {}, [], "ValueError: no such depth")
    tracker.start_trial("t2", "t0002", {})
    tracker.end_trial("t2", "infeasible", {"clean_accuracy": 0.5}, [], "the gradient has vanished")
    tracker.start_trial("t3", "t0003", {})
    tracker.end_trial("t3", "stopped", {}, [], "")
    tracker.start_trial("t4", "t0004", {})
    tracker.end_sweep("FINISHED")

    parent = client.get_run(sweep)
    assert (parent.info.run_name, parent.info.status) == ("threshold-1", "FINISHED")
    assert parent.data.tags["snnsweep.role"] == "sweep"
    assert parent.data.tags["mlflow.note.content"] == "does a threshold help?"
    assert parent.data.tags["commit"] == "abc"
    assert parent.data.params == {"trials": "4"}

    runs = children(client, sweep)
    ends = {trial_id: run.info.status for trial_id, run in runs.items()}
    assert ends == {"t0": "FINISHED", "never started": "FAILED", "t2": "FINISHED", "t3": "KILLED", "t4": "KILLED"}
    first = runs["t0"]
    assert first.info.run_name == "t0000"
    assert first.data.tags["snnsweep.role"] == "trial"
    assert first.data.params == {**{k: str(v) for k, v in many.items()}, "none": "None", "long": "x" * 6000}
    assert first.data.tags["status"] == "finished"
    assert first.data.tags["snnsweep.warnings"] == "few samples\nnoise"
    layers = {name: value for name, value in first.data.metrics.items() if name.startswith("layer/")}
    assert layers == {f"layer/{i:04d}": i for i in range(1100)}
    assert first.data.metrics.keys() - layers.keys() == {"loss", "robust_accuracy/my_attack"}
    assert [(m.step, m.value) for m in client.get_metric_history(first.info.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    assert runs["t2"].data.tags["status"] == "infeasible"
    assert runs["never started"].data.tags["snnsweep.cause"] == "ValueError: no such depth"


def test_the_front_is_replaced_and_never_doubled(tracker: Tracker, embedded: tuple[str, Path], tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=embedded[0])
    sweep = tracker.start_sweep("s", {}, {}, "")
    for trial_id in ("t0", "t1", "t2"):
        tracker.start_trial(trial_id, trial_id, {})
    rows = tmp_path / "results.parquet"
    rows.write_bytes(b"rows")
    tracker.log_front(FRONT, Figure(), [rows], OBJECTIVES)
    tracker.log_front(FRONT.iloc[:1], Figure(), [rows], OBJECTIVES)

    parent = client.get_run(sweep)
    assert parent.data.metrics == {"front_size": 1, "clean_accuracy": 0.9, "time/train_s": 3.0}
    tags = {trial_id: run.data.tags.get("pareto") for trial_id, run in children(client, sweep).items()}
    assert tags == {"t0": "false", "t1": "true", "t2": None}
    twin = client.create_run(parent.info.experiment_id).info.run_id  # MLflow's own table is the oracle
    client.log_table(twin, FRONT.iloc[:1], "front.json")
    assert parent.data.tags["mlflow.loggedArtifacts"] == client.get_run(twin).data.tags["mlflow.loggedArtifacts"]
    place = embedded[1] / sweep / "artifacts"
    assert (place / "front.json").read_text() == (embedded[1] / twin / "artifacts" / "front.json").read_text()
    assert {file.name for file in place.iterdir()} == {"front.json", "front.png", "results.parquet"}
    assert (place / "front.png").read_bytes().startswith(b"\x89PNG")

    tracker.log_front(FRONT.iloc[:0], Figure(), [], OBJECTIVES)
    assert client.get_run(sweep).data.metrics["front_size"] == 0
    assert children(client, sweep)["t1"].data.tags["pareto"] == "false"


def test_a_resumed_sweep_goes_on_in_its_runs(embedded: tuple[str, Path]) -> None:
    client = MlflowClient(tracking_uri=embedded[0])
    before = Tracker(embedded[0], "resumed", embedded[1], warn=pytest.fail)
    before.connect()
    sweep = before.start_sweep("s", {}, {"trials": 2}, "")
    before.start_trial("t0", "t0", {"device": "cuda"})
    before.start_trial("t1", "t1", {})
    before.end_trial("t1", "finished", {}, [], "")
    before.log_front(FRONT.iloc[:1], Figure(), [])
    runs = {trial_id: run.info.run_id for trial_id, run in children(client, sweep).items()}

    after = Tracker(embedded[0], "resumed", embedded[1], warn=pytest.fail)  # the first one was killed
    after.connect()
    assert after.start_sweep("s", {}, {"trials": 3, "added": 1}, "", run_id=sweep) == sweep
    after.start_trial("t0", "t0", {"device": "cpu", "seed": 7})
    after.start_trial("t0", "t0", {"device": "cpu", "seed": 7})
    after.log_front(FRONT.iloc[1:], Figure(), [])
    after.end_trial("t0", "finished", {}, [], "")
    after.end_sweep("FINISHED")

    found = children(client, sweep)
    assert {trial_id: run.info.run_id for trial_id, run in found.items()} == runs
    assert found["t0"].data.params == {"device": "cuda", "seed": "7"}
    assert {trial_id: run.data.tags["pareto"] for trial_id, run in found.items()} == {"t0": "true", "t1": "false"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert client.get_run(sweep).data.params == {"trials": "2", "added": "1"}


def test_a_mistake_of_ours_is_not_taken_for_an_outage(tracker: Tracker) -> None:
    tracker.start_sweep("s", {}, {}, "")
    with pytest.raises(TypeError):
        tracker.log_epoch("t0", 1, {"loss": "high"})  # type: ignore[dict-item]
    with pytest.raises(KeyError):
        tracker.end_trial("t0", "on fire", {}, [], "")
    assert tracker.broken == ""


def test_a_value_that_mlflow_refuses_costs_that_value_alone(embedded: tuple[str, Path]) -> None:
    said: list[str] = []
    tracker = Tracker(embedded[0], "refusing", embedded[1], said.append)
    tracker.connect()
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.start_trial("t0", "t0", {})
    tracker.log_epoch("t0", 1, {"x" * 300: 1.0})  # MLflow takes 250 characters
    tracker.log_epoch("t0", 2, {"loss": 1.0})
    assert tracker.broken == ""
    assert len(said) == 1
    assert "refused a part" in said[0]
    assert sweep
    assert children(MlflowClient(tracking_uri=embedded[0]), sweep)["t0"].data.metrics == {"loss": 1.0}


def test_files_that_find_no_place_do_not_end_the_tracking(embedded: tuple[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    tracker = Tracker(embedded[0], "no place", tmp_path / "a file" / "artifacts", warn=said.append)
    (tmp_path / "a file").touch()
    tracker.connect()
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.log_front(FRONT, Figure(), [])
    tracker.log_front(FRONT, Figure(), [])
    tracker.end_sweep("FINISHED")
    assert len(said) == 1
    assert "takes no files" in said[0]
    assert tracker.broken == ""
    assert MlflowClient(tracking_uri=embedded[0]).get_run(sweep).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://127.0.0.1:{closed}", "Connection refused"),
        ("http://me:hunter2@127.0.0.1:{closed}", "Connection refused"),
        ("htp://127.0.0.1:5000", "has to start with"),
        ("localhost:5000", "has to start with"),
        ("http://[::1", "Invalid IPv6"),
        ("mlruns", "has to start with"),
        ("file:///tmp/mlruns", "has to start with"),
        ("sqlite:////dev/null/sub/mlflow.db", "Not a directory"),
        ("sqlite:////proc/mlflow.db", "unable to open"),
    ],
)
def test_what_cannot_be_reached_is_said_in_one_line(uri: str, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        Tracker(uri.format(closed=free_port()), "e").connect()
    text = str(caught.value)
    assert time.monotonic() - started < 15
    assert why in text
    assert "--tracking-uri" in text
    assert "\n" not in text
    assert "hunter2" not in text


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # the default of the tracker is 6
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        started = time.monotonic()
        with pytest.raises(UserError, match="timed out"):
            Tracker(f"http://127.0.0.1:{mute.getsockname()[1]}", "e").connect()
        assert time.monotonic() - started < 10


def test_a_deleted_experiment_is_refused(tracker: Tracker, embedded: tuple[str, Path]) -> None:
    client = MlflowClient(tracking_uri=embedded[0])
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(UserError, match="'gone' is deleted"):
        Tracker(embedded[0], "gone").connect()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg://me:hun/t@er2@host/db", "postgresql+psycopg://***@host/db"),
        ("call of https://me:hunter2@host failed, mail a@b.c", "call of https://***@host failed, mail a@b.c"),
        ("mysql://host/db?user=me&password=hunter2&x=1", "mysql://host/db?user=me&password=***&x=1"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_tracker_shows_no_secret() -> None:
    assert repr(Tracker("http://me:hunter2@host", "e")) == "Tracker('http://***@host', 'e')"


def test_mlflow_is_quiet_and_tells_nobody(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from snnsweep.tracking.mlflow import Tracker
tracker = Tracker(sys.argv[1], "e", Path("artifacts"))
tracker.connect()
tracker.start_sweep("s", {}, {}, "")
tracker.start_trial("t0", "t0", {})
tracker.end_trial("t0", "finished", {}, [], "")
tracker.end_sweep("FINISHED")
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_", "CI"))}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", "-c", program, f"sqlite:///{tmp_path / 'new.db'}"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
def test_the_embedded_database_can_be_served(tracker: Tracker, embedded: tuple[str, Path], tmp_path: Path) -> None:
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.log_front(FRONT, Figure(), [])
    with server(tmp_path, *embedded) as (uri, _):
        assert MlflowClient(tracking_uri=uri).get_run(sweep).info.run_name == "s"
        with urllib.request.urlopen(f"{uri}/get-artifact?path=front.png&run_uuid={sweep}", timeout=20) as answer:
            assert answer.read().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_sweep_outlives_its_server(tmp_path: Path) -> None:
    said: list[str] = []
    with server(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts") as (uri, process):
        tracker = Tracker(uri, "e", warn=said.append)
        tracker.connect()
        sweep = tracker.start_sweep("s", {}, {"trials": 2}, "")
        tracker.start_trial("t0", "t0", {"neuron.tau": 2.0})
        tracker.log_epoch("t0", 1, {"loss": 2.0})
        tracker.end_trial("t0", "finished", {"clean_accuracy": 0.5}, ["w"], "")
        tracker.log_front(FRONT.iloc[1:], Figure(), [])
        tracker.start_trial("t1", "t1", {})

        client = MlflowClient(tracking_uri=uri)
        runs = children(client, sweep)
        assert {trial_id: run.info.status for trial_id, run in runs.items()} == {"t0": "FINISHED", "t1": "RUNNING"}
        assert runs["t0"].data.params == {"neuron.tau": "2.0"}
        assert runs["t0"].data.metrics == {"loss": 2.0, "clean_accuracy": 0.5}
        assert runs["t0"].data.tags["pareto"] == "true"
        content = Path(client.download_artifacts(sweep, "front.json", str(tmp_path))).read_text()
        assert json.loads(content)["data"] == [["t0", 0.5, 1.0]]
        assert (said, tracker.broken) == ([], "")

        kill(process)
        started = time.monotonic()
        tracker.log_epoch("t1", 1, {"loss": 2.0})
        assert time.monotonic() - started < 15
        assert "Connection refused" in tracker.broken
        started = time.monotonic()
        tracker.log_epoch("t1", 2, {"loss": 1.0})
        tracker.end_trial("t1", "finished", {}, [], "")
        assert tracker.start_sweep("again", {}, {}, "") is None
        tracker.log_front(FRONT, Figure(), [])
        tracker.end_sweep("FINISHED")
        assert time.monotonic() - started < 2  # five calls to a dead server would wait for longer
        assert len(said) == 1
        assert "Connection refused" in said[0]
