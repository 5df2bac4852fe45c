"""The tracker against real MLflow: an embedded sqlite, and a server in a process of its own."""

import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from serving import children, everything, free_port, history, server

from snnsweep.errors import UserError
from snnsweep.tracking.address import kept, redacted
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.runs import Outage


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
    rows, table = tmp_path / "results.parquet", tmp_path / "front.json"
    rows.write_bytes(b"rows")
    table.write_text("{}")
    tracker.log_front(["t1", "t0"], [table, rows])
    rows.write_bytes(b"more rows")
    tracker.log_front(["t1", "unknown"], [table, rows])

    parent = client.get_run(sweep)
    tags = {trial_id: run.data.tags.get("pareto") for trial_id, run in children(client, sweep).items()}
    assert tags == {"t0": "false", "t1": "true", "t2": None}
    assert parent.data.tags["mlflow.loggedArtifacts"] == '[{"path": "front.json", "type": "table"}]'
    place = embedded[1] / sweep / "artifacts"
    assert {file.name for file in place.iterdir()} == {"front.json", "results.parquet"}
    assert (place / "results.parquet").read_bytes() == b"more rows"

    tracker.log_front([])
    assert children(client, sweep)["t1"].data.tags["pareto"] == "false"


def test_a_resumed_sweep_goes_on_in_its_runs(embedded: tuple[str, Path]) -> None:
    client = MlflowClient(tracking_uri=embedded[0])
    before = Tracker(embedded[0], "resumed", embedded[1], warn=pytest.fail)
    before.connect()
    sweep = before.start_sweep("s", {}, {"trials": 2}, "")
    before.start_trial("t0", "t0", {"device": "cuda"})
    before.start_trial("t1", "t1", {})
    before.end_trial("t1", "finished", {}, [], "")
    before.log_front(["t1"])
    runs = {trial_id: run.info.run_id for trial_id, run in children(client, sweep).items()}

    after = Tracker(embedded[0], "resumed", embedded[1], warn=pytest.fail)  # the first one was killed
    after.connect()
    assert after.start_sweep("s", {}, {"trials": 3, "added": 1}, "", run_id=sweep) == sweep
    after.start_trial("t0", "t0", {"device": "cpu", "seed": 7})
    after.start_trial("t0", "t0", {"device": "cpu", "seed": 7})
    after.log_front(["t0"])
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


def test_a_value_that_mlflow_refuses_costs_that_value_alone(embedded: tuple[str, Path], client: MlflowClient) -> None:
    said: list[str] = []
    tracker = Tracker(embedded[0], "refusing", embedded[1], said.append)
    tracker.connect()
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.start_trial("t0", "t0", {"y" * 300: 1, "kept": 2})
    for step in (1, 2):
        tracker.log_epoch("t0", step, {"a": 0.5, "x" * 300: 1.0, "loss": 1.0 / step})  # MLflow takes 250 characters
    tracker.end_trial("t0", "finished", {"x" * 300: 1.0}, [], "")
    assert ["refused a part" in text for text in said] == [True, True]
    assert ["yyy" in said[0], "xxx" in said[1]] == [True, True]
    run = children(client, sweep)["t0"]
    assert (run.data.params, run.info.status) == ({"kept": "2"}, "FINISHED")
    assert {name: [point[:2] for point in points] for name, points in history(client, run).items()} == {
        "a": [(1, 0.5), (2, 0.5)],
        "loss": [(1, 1.0), (2, 0.5)],
    }


def test_text_that_no_database_stores_is_mended(tracker: Tracker, client: MlflowClient) -> None:
    sweep = tracker.start_sweep("s", {}, {"odd\ud800": "lone \ud800"}, "")
    tracker.end_trial("t0", "failed", {}, [], "a \udfff, a \0")
    assert client.get_run(sweep).data.params == {"odd_": "lone ?"}
    assert children(client, sweep)["t0"].data.tags["snnsweep.cause"] == "a ?, a ?"


def test_files_that_find_no_place_do_not_end_the_tracking(embedded: tuple[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    tracker = Tracker(embedded[0], "no place", tmp_path / "a file" / "artifacts", warn=said.append)
    (tmp_path / "a file").touch()
    tracker.connect()
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.log_front([], [tmp_path / "a file"])
    tracker.log_front([], [tmp_path / "a file"])
    tracker.end_sweep("FINISHED")
    assert len(said) == 1
    assert "takes no files" in said[0]
    assert MlflowClient(tracking_uri=embedded[0]).get_run(sweep).info.status == "FINISHED"


def test_files_that_an_outage_stops_are_tried_again(tracker: Tracker, tmp_path: Path) -> None:
    class Gone:
        def log_artifact(self, *args: str) -> None:
            raise ConnectionResetError("gone")

        get_run = log_artifact

    tracker.start_sweep("s", {}, {}, "")
    tracker.log_front([])
    tracker._runs.client = Gone()  # type: ignore[assignment]
    with pytest.raises(Outage, match="gone"):
        tracker.log_front([], [tmp_path])


def test_a_tracker_can_go_on_with_another_sweep(tracker: Tracker, client: MlflowClient) -> None:
    sweeps = []
    for _ in range(2):
        sweeps.append(tracker.start_sweep("s", {}, {}, ""))
        tracker.start_trial("t0", "t0", {})
        tracker.log_front(["t0"])
    tracker.attach(sweeps[0])
    tracker.log_front([])
    assert [children(client, sweep)["t0"].data.tags["pareto"] for sweep in sweeps] == ["false", "true"]


SETS = [
    {"name": "s", "split": split, "samples": n, "shape": [1, 8, 8], "classes": 2, "digest": split[:4], "given": given}
    for split, n, given in (("train", 90, {"subset": 90}), ("validation", 10, {}))
]


def whole_sweep(tracker: Tracker, sweep: str) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What a sweep says to a tracker after its start, in order."""
    return [
        (tracker.start_sweep, ("s", {"commit": "a"}, {"trials": 2, "more": 1}, "why", sweep)),
        (tracker.start_trial, ("t0", "t0", {f"key.{i}": i for i in range(130)})),
        (tracker.log_epoch, ("t0", 1, {"loss": 2.0, "acc": 0.5})),
        (tracker.log_epoch, ("t0", 2, {"loss": 1.0, "acc": 0.5})),
        (tracker.start_trial, ("t1", "t1", {"key.0": 1})),
        (tracker.end_trial, ("t0", "finished", {f"l/{i}": i / 3 for i in range(30)} | {"acc": 0.5}, ["w"], "", 2)),
        (tracker.log_course, (1, {"front_size": 1.0})),
        (tracker.log_front, (["t0"],)),
        (tracker.log_course, (2, {"front_size": 2.0})),
        (tracker.log_front, (["t1"],)),
        (tracker.start_trial, ("t2", "t2", {})),
        (tracker.end_sweep, ("KILLED",)),
        (tracker.log_data, ("t0", SETS)),
        (tracker.log_data, ("", SETS)),
        (tracker.log_confirmed, ("t0-seed1", "t0", {"seed": 1}, "finished", {"acc": 0.25}, ["w"], "", "fail", SETS)),
    ]


def test_what_is_said_twice_is_there_once(tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient) -> None:
    sweep = tracker.start_sweep("s", {}, {"trials": 2}, "")
    for at, (call, said) in enumerate(whole_sweep(tracker, sweep), start=1000):
        call(*said, at=at)
        call(*said, at=at)
    once = everything(client, sweep)
    assert {trial_id: len(points) for trial_id, (_, _, _, points) in once.items()} == {
        "": 1,
        "t0": 32,
        "t1": 0,
        "t2": 0,
    }
    assert once["t0"][3]["loss"] == [(1, 2.0, 1002), (2, 1.0, 1003)]
    assert once["t0"][3]["acc"] == [(1, 0.5, 1002), (2, 0.5, 1003), (2, 0.5, 1005)]
    assert once[""][3]["front_size"] == [(1, 1.0, 1006), (2, 2.0, 1008)]
    assert [once[trial_id][2].get("pareto") for trial_id in ("t0", "t1", "t2")] == ["false", "true", None]
    for trial_id in ("", "t0"):
        given = client.get_run(once[trial_id][0].run_id).inputs.dataset_inputs
        assert sorted((one.dataset.name, one.dataset.digest, one.tags[0].value) for one in given) == [
            ("s", "trai", "train"),
            ("s", "vali", "validation"),
        ]
    (confirmed,) = children(client, once["t0"][0].run_id).values()
    assert (confirmed.info.run_name, confirmed.info.status) == ("t0-seed1", "FINISHED")
    assert (confirmed.data.metrics, confirmed.data.params) == ({"acc": 0.25}, {"seed": "1"})
    said = {"snnsweep.role": "confirm", "snnsweep.member": "t0", "audit": "fail", "status": "finished"}
    assert said.items() <= confirmed.data.tags.items()
    assert len(confirmed.inputs.dataset_inputs) == 2
    assert (once["t0"][0].start_time, once["t0"][0].end_time, once["t0"][0].status) == (1001, 1005, "FINISHED")

    again = Tracker(embedded[0], "another process", warn=pytest.fail)
    again.attach(sweep)
    for at, (call, said) in enumerate(whole_sweep(again, sweep), start=1000):
        call(*said, at=at)
    assert everything(client, sweep) == once


class Flaky:
    """A client that does what it is asked, and then loses the answer: the first time that it is asked for it."""

    def __init__(self, client: MlflowClient):
        self.client, self.failed = client, set[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            answer = getattr(self.client, name)(*args, **kwargs)
            if repr((name, args, kwargs)) not in self.failed:
                self.failed.add(repr((name, args, kwargs)))
                raise ConnectionError("the answer was lost")
            return answer

        return call


def test_an_answer_that_is_lost_makes_nothing_twice(
    tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient
) -> None:
    smooth = tracker.start_sweep("s", {}, {"trials": 2}, "")
    for at, (call, said) in enumerate(whole_sweep(tracker, smooth), start=1000):
        call(*said, at=at)
    rough = tracker.start_sweep("s", {}, {"trials": 2}, "")
    lost = 0
    tracker._runs.client = Flaky(client)  # type: ignore[assignment]
    for at, (call, said) in enumerate(whole_sweep(tracker, rough), start=1000):
        while True:
            try:
                call(*said, at=at)
                break
            except Outage:
                lost += 1
    assert lost > 15
    told = [everything(client, sweep) for sweep in (smooth, rough)]
    again = f"tags.`mlflow.parentRunId` = '{rough}'"
    assert not client.search_runs([tracker.experiment_id], again, run_view_type=ViewType.DELETED_ONLY)
    facts = [{k: (i.status, i.end_time, params, points) for k, (i, params, _, points) in it.items()} for it in told]
    assert facts[0] == facts[1]


def test_a_run_that_a_late_answer_made_twice_is_deleted(
    tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient
) -> None:
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.start_trial("t0", "t0", {})
    tracker.log_epoch("t0", 1, {"loss": 1.0})
    tags = {"mlflow.parentRunId": sweep, "snnsweep.role": "trial", "snnsweep.trial_id": "t0"}
    late = client.create_run(tracker.experiment_id, tags=tags).info.run_id  # asked for before, and done only now
    again = Tracker(embedded[0], "another process", warn=pytest.fail)
    again.attach(sweep)
    again.log_epoch("t0", 2, {"acc": 0.5})
    again.end_sweep("FINISHED")
    left = children(client, sweep)["t0"]
    assert (left.info.status, left.data.metrics) == ("KILLED", {"loss": 1.0, "acc": 0.5})
    assert client.get_run(late).info.lifecycle_stage == "deleted"


def test_a_run_that_somebody_deleted_does_not_cost_the_others(embedded: tuple[str, Path], client: MlflowClient) -> None:
    tracker = Tracker(embedded[0], "deleting", embedded[1], warn=pytest.fail)
    tracker.connect()
    sweep = tracker.start_sweep("s", {}, {}, "")
    tracker.start_trial("t0", "t0", {})
    client.delete_run(children(client, sweep)["t0"].info.run_id)
    with pytest.raises(UserError, match=r"refused.*deleted"):
        tracker.log_epoch("t0", 1, {f"m{i}": 1.0 for i in range(500)})
    tracker.start_trial("t1", "t1", {})
    assert set(children(client, sweep)) == {"t1"}


def test_a_mix_is_kept_once_and_never_raises(
    tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient
) -> None:
    sweep = tracker.start_sweep("s", {}, {}, "")
    for value in (0.25, 0.5):
        again = Tracker(embedded[0], tracker._experiment, warn=pytest.fail)
        again.connect()
        again.log_mix(sweep, "t0+t1@0.5", {"weight": 0.5}, "finished", {"clean_accuracy": value}, ["w"], "suspect")
    run = children(client, sweep)["t0+t1@0.5"]
    assert (run.info.status, run.data.params, run.data.metrics) == (
        "FINISHED",
        {"weight": "0.5"},
        {"clean_accuracy": 0.5},
    )
    assert (run.data.tags["snnsweep.role"], run.data.tags["audit"]) == ("mix", "suspect")
    said: list[str] = []
    dead = Tracker(f"http://127.0.0.1:{free_port()}", "e", warn=said.append)
    dead.log_mix(sweep, "t0+t1@0.5", {}, "finished", {}, [], "")
    assert len(said) == 1
    assert "Connection refused" in said[0]


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
    assert time.monotonic() - started < 300  # and not for as long as MLflow itself tries
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
        assert time.monotonic() - started < 300


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
    assert "***@" not in kept(shown)


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
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "mlruns").exists()


def test_an_outage_is_raised_and_the_next_call_is_tried(embedded: tuple[str, Path], client: MlflowClient) -> None:
    port = free_port()
    tracker = Tracker(f"http://127.0.0.1:{port}", "e", warn=pytest.fail)
    for call in (tracker.connect, lambda: tracker.attach("0" * 32), lambda: tracker.log_epoch("t0", 1, {"loss": 1.0})):
        with pytest.raises(UserError, match="Connection refused"):
            call()


@pytest.mark.slow
def test_the_embedded_database_can_be_served(tracker: Tracker, embedded: tuple[str, Path], tmp_path: Path) -> None:
    sweep = tracker.start_sweep("s", {}, {}, "")
    (tmp_path / "front.png").write_bytes(b"\x89PNG")
    tracker.log_front([], [tmp_path / "front.png"])
    with server(tmp_path, *embedded) as (uri, _):
        assert MlflowClient(tracking_uri=uri).get_run(sweep).info.run_name == "s"
        with urllib.request.urlopen(f"{uri}/get-artifact?path=front.png&run_uuid={sweep}", timeout=300) as answer:
            assert answer.read() == b"\x89PNG"
