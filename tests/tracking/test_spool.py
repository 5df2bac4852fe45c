"""A sweep's calls reach MLflow once and in order, whatever dies meanwhile, and the sweep never waits for it."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from matplotlib.figure import Figure
from mlflow import MlflowClient
from serving import Relay, children, everything, free_port, history, kill, server

from snnsweep.errors import UserError
from snnsweep.result import Direction
from snnsweep.tracking import spool as spool_module
from snnsweep.tracking.deliver import sync
from snnsweep.tracking.journal import DELIVERED, SPOOL
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.spool import Spool

FRONT = pd.DataFrame({"trial_id": ["t1", "t0"], "clean_accuracy": [0.9, 0.5], "time/train_s": [3.0, 1.0]})
OBJECTIVES: dict[str, Direction] = {"clean_accuracy": "maximize", "time/train_s": "minimize"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_PAUSES", (0.1, 0.3))


@pytest.fixture
def spools() -> Iterator[Callable[..., Spool]]:
    """Makes spools that are closed after the test."""
    made: list[Spool] = []

    def make(*args: Any, **kwargs: Any) -> Spool:
        made.append(Spool(*args, **kwargs))
        return made[-1]

    yield make
    for spool in made:
        spool.close(0)


def soon(condition: Callable[[], object], patience_s: float = 600.0) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


def dead(warn: Callable[[str], None] = lambda text: None) -> Tracker:
    return Tracker(f"http://me:hunter2@127.0.0.1:{free_port()}", "e", warn=warn)


def test_a_sweep_is_told_by_and_by(
    tracker: Tracker,
    embedded: tuple[str, Path],
    client: MlflowClient,
    tmp_path: Path,
    spools: Callable[..., Spool],
) -> None:
    sweep = tracker.start_sweep("s", {}, {"trials": 2}, "")
    spool = spools(tmp_path, tracker, sweep, pytest.fail)
    (tmp_path / "results.parquet").write_bytes(b"rows")
    spool.start_trial("t0", "t0", {"depth": 18, "none": None})
    spool.log_epoch("t0", 1, {"loss": 2.0, "gone": float("nan"), "wild": float("inf")})
    spool.start_trial("t1", "t1", {})
    spool.log_course(1, {"front_size": 1, "hypervolume": float("nan")})
    spool.log_course(2, {"front_size": 2})
    spool.log_front(FRONT, Figure(), [tmp_path / "results.parquet"], OBJECTIVES)
    spool.log_front(FRONT.iloc[:1], Figure(), [tmp_path / "results.parquet"], OBJECTIVES)
    spool.end_trial("t0", "finished", {"clean_accuracy": 0.5, "gone": float("nan")}, ["w"], "", 1, "suspect")
    spool.end_sweep("FINISHED")
    assert spool.close(30) == 0
    assert (spool.undelivered, spool.outage) == (0, "")

    runs = children(client, sweep)
    assert {trial_id: run.info.status for trial_id, run in runs.items()} == {"t0": "FINISHED", "t1": "KILLED"}
    assert runs["t0"].data.params == {"depth": "18", "none": "None"}
    assert runs["t0"].data.metrics == {"loss": 2.0, "clean_accuracy": 0.5}
    tags = runs["t0"].data.tags
    assert [tags[name] for name in ("status", "snnsweep.warnings", "audit")] == ["finished", "w", "suspect"]
    assert [runs[trial_id].data.tags["pareto"] for trial_id in ("t0", "t1")] == ["false", "true"]
    parent = client.get_run(sweep)
    assert (parent.info.status, parent.data.params) == ("FINISHED", {"trials": "2"})
    assert [point[:2] for point in history(client, parent)["front_size"]] == [(1, 1.0), (2, 2.0)]

    twin = client.create_run(parent.info.experiment_id).info.run_id  # MLflow's own table is the oracle
    client.log_table(twin, FRONT.iloc[:1], "front.json")
    assert parent.data.tags["mlflow.loggedArtifacts"] == client.get_run(twin).data.tags["mlflow.loggedArtifacts"]
    place = embedded[1] / sweep / "artifacts"
    assert (place / "front.json").read_text() == (embedded[1] / twin / "artifacts" / "front.json").read_text()
    assert {file.name for file in place.iterdir()} == {"front.json", "front.png", "results.parquet"}
    assert (place / "front.png").read_bytes() == (tmp_path / "front.png").read_bytes()
    assert (place / "front.png").read_bytes().startswith(b"\x89PNG")


def test_times_go_up_by_themselves(
    tmp_path: Path, spools: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spools(tmp_path, dead(), "0a")
    monkeypatch.setattr(time, "time", lambda: 1000.0 - len((tmp_path / SPOOL).read_bytes()))  # a clock that goes back
    for step in range(5):
        spool.log_epoch("t0", step, {"loss": 1.0})
    times = [json.loads(line)["at"] for line in (tmp_path / SPOOL).read_text().splitlines()[1:]]
    assert times == sorted(set(times))
    assert len(times) == 5


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory, embedded: tuple[str, Path]) -> Iterator[int]:
    """The port of a real MLflow server."""
    with server(tmp_path_factory.mktemp("server"), *embedded) as (uri, _):
        yield int(uri.rpartition(":")[2])


def test_an_outage_in_the_middle_loses_nothing(
    real_server: int,
    client: MlflowClient,
    tmp_path: Path,
    impatient: None,
    spools: Callable[..., Spool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requested: list[str] = []
    send = requests.Session.send

    def counted(self: requests.Session, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        requested.append(str(request.url).rpartition("/")[2])
        return send(self, request, **kwargs)

    monkeypatch.setattr(requests.Session, "send", counted)
    said: list[str] = []
    relay = Relay(real_server)
    relay.open()
    tracker = Tracker(f"http://127.0.0.1:{relay.port}", "outage", warn=said.append)
    tracker.connect()
    sweep = tracker.start_sweep("s", {}, {}, "")
    spool = spools(tmp_path, tracker, sweep, said.append)

    def trial(number: int, then: Callable[[], object] = lambda: None) -> None:
        spool.start_trial(f"t{number}", f"t{number}", {"number": number})
        for step in range(1, 5):
            spool.log_epoch(f"t{number}", step, {f"m{i}": step + i / 10 for i in range(20)})
            if step == 2:
                then()
        spool.end_trial(f"t{number}", "finished", {"clean_accuracy": 0.5}, [], "", 4)

    requested.clear()
    trial(0)
    soon(lambda: spool.undelivered == 0)
    assert requested == ["create", "log-batch", *4 * ["log-batch"], "log-batch", "update"]
    assert (said, spool.outage) == ([], "")

    trial(1, relay.close)
    soon(lambda: "Connection refused" in spool.outage)
    for number in range(2, 6):
        trial(number)
    left = spool.undelivered
    assert 4 * 6 <= left <= 4 * 6 + 6
    time.sleep(1.5)  # some tries
    assert spool.undelivered == left
    assert len(said) == 1
    assert "the sweep goes on" in said[0]

    relay.open()
    soon(lambda: spool.undelivered == 0)
    spool.end_sweep("FINISHED")
    assert spool.close(30) == 0
    relay.close()
    assert len(said) == 2
    assert "answers again" in said[1]
    runs = children(client, sweep)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    begun = sorted(runs, key=lambda trial_id: runs[trial_id].info.start_time)
    assert begun == [f"t{number}" for number in range(6)]
    for number in range(6):
        points = history(client, runs[f"t{number}"])
        assert runs[f"t{number}"].data.params == {"number": str(number)}
        assert {name: [p[:2] for p in it] for name, it in points.items()} == {
            **{f"m{i}": [(step, step + i / 10) for step in range(1, 5)] for i in range(20)},
            "clean_accuracy": [(4, 0.5)],
        }
        times = [at for _, _, at in points["m0"]]
        assert times == sorted(set(times))


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_again(
    tmp_path: Path, impatient: None, spools: Callable[..., Spool], embedded: tuple[str, Path]
) -> None:
    said: list[str] = []
    place = (tmp_path, *embedded)
    (tmp_path / "sweep").mkdir()
    with server(*place) as (uri, process):
        tracker = Tracker(uri, "e", warn=said.append)
        tracker.connect()
        sweep = tracker.start_sweep("s", {}, {"trials": 2}, "")
        spool = spools(tmp_path / "sweep", tracker, sweep, said.append)
        spool.start_trial("t0", "t0", {"neuron.tau": 2.0})
        spool.log_epoch("t0", 1, {"loss": 2.0})
        soon(lambda: spool.undelivered == 0)
        kill(process)
        spool.log_epoch("t0", 2, {"loss": 1.0})
        spool.log_front(FRONT.iloc[1:], Figure(), [], OBJECTIVES)
        soon(lambda: "Connection refused" in spool.outage)
        started = time.monotonic()
        assert spool.close(600) == 2
        assert time.monotonic() - started < 300  # and not as long as it was told to wait
        with pytest.raises(UserError, match="2 of 2 calls"):
            sync(tmp_path / "sweep", Tracker(uri, "e"))
    with server(*place, port=int(uri.rpartition(":")[2])):
        assert sync(tmp_path / "sweep", Tracker(uri, "e", warn=pytest.fail)) == 2
        client = MlflowClient(tracking_uri=uri)
        run = children(client, sweep)["t0"]
        assert [point[:2] for point in history(client, run)["loss"]] == [(1, 2.0), (2, 1.0)]
        assert run.data.tags["pareto"] == "true"
        content = Path(client.download_artifacts(sweep, "front.json", str(tmp_path))).read_text()
        assert json.loads(content)["data"] == [["t0", 0.5, 1.0]]
    assert len(said) == 1


def test_nobody_waits_for_a_server_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spools: Callable[..., Spool]
) -> None:
    """A thread of its own asks it; what the others say is in the file when they have said it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    asked: list[str] = []
    attach = Tracker.attach

    def noted(tracker: Tracker, run_id: str) -> None:
        asked.append(threading.current_thread().name)
        attach(tracker, run_id)

    monkeypatch.setattr(Tracker, "attach", noted)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:  # accepts, and never answers
        said: list[str] = []
        spool = spools(tmp_path, Tracker(f"http://127.0.0.1:{mute.getsockname()[1]}", "e"), "0a", said.append)
        metrics = {f"metric/{i}": i / 7 for i in range(100)}
        for number in range(50):
            spool.start_trial(f"t{number}", "t", {f"key.{i}": i for i in range(60)})
            for step in range(10):
                spool.log_epoch(f"t{number}", step, metrics)
            spool.end_trial(f"t{number}", "finished", metrics, [], "", 9)
        assert (tmp_path / SPOOL).read_text().count('"call"') == spool.undelivered == 600
        for _ in range(2):
            started = time.monotonic()
            assert spool.close(600) == 600
            assert time.monotonic() - started < 300  # the server is given one try, and not all that time
        assert len(said) == 1
        assert "timed out" in said[0]
        assert set(asked) == {"snnsweep-mlflow"}


KILLED = """
import os, sys, time
from pathlib import Path
from matplotlib.figure import Figure
import pandas as pd
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.spool import Spool
import mlflow.store.tracking.sqlalchemy_store  # would be imported in each round, for longer than that lives

uri, sweep, folder, rounds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), [int(lines) for lines in sys.argv[4:]]

def run(first, uri):
    log = os.open(folder / "said", os.O_WRONLY | os.O_APPEND)
    said = lambda *what: os.write(log, (" ".join(map(str, what)) + "\\n").encode())
    spool = Spool(folder, Tracker(uri, "killed"), sweep)
    spool.start_sweep("s", {}, {"trials": 9}, "")
    for number in range(first, first + 10000):
        spool.start_trial(f"t{number}", f"t{number}", {"number": number})
        said("start", number)
        for step in range(1, 4):
            spool.log_epoch(f"t{number}", step, {"loss": number + step / 10, "acc": 0.5})
            said("epoch", number, step)
            time.sleep(0.02)
        spool.end_trial(f"t{number}", "finished", {"clean_accuracy": number / 7}, [], "", 3)
        said("end", number)

def lines():
    return (folder / "said").read_bytes().count(b"\\n")

for i, more in enumerate(rounds):  # one import for all
    enough = lines() + more
    child = os.fork()
    if not child:
        run(100000 * i, uri if i < len(rounds) - 1 else "http://127.0.0.1:9")  # where nobody listens
    while lines() < enough or not (folder / "tracking.delivered").exists():
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


def test_kill_9_loses_nothing_and_makes_nothing_twice(
    tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient, tmp_path: Path
) -> None:
    sweep = tracker.start_sweep("s", {}, {}, "")
    (tmp_path / "said").touch()
    rounds = [str(random.randint(5, 40)) for _ in range(4)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", KILLED, embedded[0], sweep, str(tmp_path), *rounds]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in (tmp_path / "said").read_text().splitlines()]
    assert len(said) > 20
    told_before = int((tmp_path / DELIVERED).read_text())
    assert 0 < told_before < (tmp_path / SPOOL).stat().st_size

    again = Tracker(embedded[0], "killed", warn=pytest.fail)
    assert sync(tmp_path, again, pytest.fail) > 0
    assert sync(tmp_path, again, pytest.fail) == 0
    runs = children(client, sweep)
    ended = {f"t{number}" for what, number, *_ in said if what == "end"}
    assert {trial_id for trial_id, run in runs.items() if run.info.status == "FINISHED"} >= ended
    assert {f"t{number}" for what, number, *_ in said if what == "start"} <= runs.keys()
    for trial_id, run in runs.items():
        number = int(trial_id[1:])
        points = history(client, run)
        acknowledged = [int(step[0]) for what, n, *step in said if (what, n) == ("epoch", str(number))]
        steps = [step for step, _, _ in points.get("loss", [])]
        assert steps[: len(acknowledged)] == acknowledged
        assert len(set(steps)) == len(steps) <= len(acknowledged) + 1  # killed between the line and its "said"
        assert [value for _, value, _ in points.get("loss", [])] == [number + step / 10 for step in steps]
        assert len(points.get("acc", [])) == len(steps)
        assert len(points.get("clean_accuracy", [])) == (run.info.status == "FINISHED")
        assert run.data.params == {"number": str(number)}

    once = everything(client, sweep)
    (tmp_path / DELIVERED).unlink()
    assert sync(tmp_path, Tracker(embedded[0], "killed", warn=pytest.fail), pytest.fail) > len(said)
    assert everything(client, sweep) == once


def test_a_resumed_sweep_begins_without_its_server(
    tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient, tmp_path: Path, spools: Callable[..., Spool]
) -> None:
    sweep = tracker.start_sweep("s", {}, {"trials": 2}, "")
    before = spools(tmp_path, tracker, sweep, pytest.fail)
    for trial_id in ("t0", "t1", "t2"):
        before.start_trial(trial_id, trial_id, {"seed": 1})
    before.end_trial("t0", "finished", {}, [], "")
    before.log_front(FRONT.iloc[1:], Figure(), [], OBJECTIVES)
    before.end_sweep("KILLED")
    assert before.close(30) == 0

    after = spools(tmp_path, dead(), sweep)
    after.start_sweep("s", {"resumed": True}, {"trials": 3, "added": 1}, "")
    after.start_trial("t1", "t1", {"seed": 1, "device": "cuda"})
    after.log_epoch("t1", 1, {"loss": 1.0})
    after.log_front(FRONT.iloc[:1], Figure(), [], OBJECTIVES)
    soon(lambda: after.outage)
    assert after.close(30) == 4
    assert {run.info.status for run in children(client, sweep).values()} == {"FINISHED", "KILLED"}

    assert sync(tmp_path, Tracker(embedded[0], "any", warn=pytest.fail), pytest.fail) == 4
    runs = children(client, sweep)
    states = {trial_id: run.info.status for trial_id, run in runs.items()}
    assert states == {"t0": "FINISHED", "t1": "RUNNING", "t2": "KILLED"}
    assert runs["t1"].data.params == {"seed": "1", "device": "cuda"}
    assert [runs[trial_id].data.tags.get("pareto") for trial_id in ("t0", "t1", "t2")] == ["false", "true", None]
    parent = client.get_run(sweep)
    assert (parent.info.status, parent.data.params) == ("RUNNING", {"trials": "2", "added": "1"})
    assert parent.data.tags["resumed"] == "True"
    assert client.get_experiment_by_name("any") is None


def test_no_secret_reaches_the_folder_or_a_message(tmp_path: Path, spools: Callable[..., Spool]) -> None:
    said: list[str] = []
    spool = spools(tmp_path, dead(said.append), "0a", said.append)
    spool.start_sweep("s", {}, {}, "")
    spool.log_front(FRONT, Figure(), [], OBJECTIVES)
    soon(lambda: said)
    with pytest.raises(UserError) as caught:
        sync(tmp_path, dead())
    assert "hunter2" not in str(caught.value) + spool.outage + "".join(said)
    assert all(b"hunter2" not in file.read_bytes() for file in tmp_path.iterdir())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["front.json", "front.png", SPOOL]


def test_what_mlflow_will_never_take_holds_up_nothing(
    tracker: Tracker, embedded: tuple[str, Path], client: MlflowClient, tmp_path: Path, spools: Callable[..., Spool]
) -> None:
    said: list[str] = []
    patient = Tracker(embedded[0], tracker._experiment, warn=said.append)
    patient.connect()
    sweep = patient.start_sweep("s", {}, {}, "")
    for trial_id in ("t0", "t1"):
        patient.start_trial(trial_id, trial_id, {})
    client.delete_run(children(client, sweep)["t0"].info.run_id)
    strange = ['{"call": "__init__", "at": 1, "said": {}}', '{"call": "log_epoch"}', '{"call": "end_sweep", "at"']
    (tmp_path / SPOOL).write_text(
        "\n".join([json.dumps({"run_id": sweep}), *strange])
    )  # of a later version, or by hand
    spool = spools(tmp_path, patient, sweep, said.append)
    spool.end_trial("t1", "no such status", {}, [], "")
    for step in range(3):
        spool.log_epoch("t0", step, {"loss": 1.0})
    spool.log_epoch("t1", 1, {"x" * 300: 1.0, "loss": 1.0})
    assert spool.close(10) == 0
    assert spool.outage == ""
    run = children(client, sweep)["t1"]
    assert (run.data.metrics, run.info.status) == ({"loss": 1.0}, "RUNNING")
    words = ["__init__", "'said'", "no such status", "deleted", "xxx"]
    assert [word in text for word, text in zip(words, said, strict=True)] == [True] * 5


def test_the_thread_lives_whatever_happens(
    tracker: Tracker,
    client: MlflowClient,
    tmp_path: Path,
    impatient: None,
    spools: Callable[..., Spool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    sweep = tracker.start_sweep("s", {}, {}, "")
    spool = spools(tmp_path, tracker, sweep, said.append)
    attach, troubles = tracker.attach, [MemoryError("no memory"), RuntimeError("a mistake")]

    def troubled(run_id: str) -> None:
        if troubles:
            raise troubles.pop(0)
        attach(run_id)

    monkeypatch.setattr(tracker, "attach", troubled)
    spool.log_epoch("t0", 1, {"loss": 1.0})
    soon(lambda: spool.undelivered == 0)
    assert children(client, sweep)["t0"].data.metrics == {"loss": 1.0}
    assert ["no memory" in said[0], "answers again" in said[1], len(said)] == [True, True, 2]

    hidden = tmp_path / "hidden"
    (tmp_path / SPOOL).rename(hidden)
    (tmp_path / SPOOL).mkdir()  # nothing can be read or written there
    spool.log_epoch("t0", 2, {"loss": 0.5})
    soon(lambda: spool.outage)
    (tmp_path / SPOOL).rmdir()
    hidden.rename(tmp_path / SPOOL)
    spool.log_epoch("t0", 3, {"loss": 0.25})
    assert spool.close(10) == 0
    points = history(client, children(client, sweep)["t0"])["loss"]
    assert [point[:2] for point in points] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_close_waits_as_long_as_it_is_told(tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tracker.start_sweep("s", {}, {}, "")
    free, told = threading.Event(), []
    monkeypatch.setattr(tracker, "log_epoch", lambda *args, **said: (free.wait(600), told.append(said["step"])))
    spool = Spool(tmp_path, tracker, sweep, pytest.fail)
    for step in range(3):
        spool.log_epoch("t0", step, {})
    started = time.monotonic()
    assert spool.close(0.3) == 3
    assert 0.25 < time.monotonic() - started < 300
    free.set()
    soon(lambda: spool.undelivered == 2)  # the call that was under way
    soon(lambda: not [thread for thread in threading.enumerate() if thread.name == "snnsweep-mlflow"])
    assert (told, spool.undelivered) == ([0], 2)


def test_a_sweep_without_a_spool_has_nothing_to_sync(tmp_path: Path) -> None:
    assert sync(tmp_path, dead()) == 0
    (tmp_path / SPOOL).write_text('{"call": "end_sweep", "at": 1, "said": {"status": "FINISHED"}}\n')
    with pytest.raises(UserError, match="first line"):
        sync(tmp_path, dead())


def test_a_file_of_elsewhere_is_a_mistake(tmp_path: Path, spools: Callable[..., Spool]) -> None:
    (tmp_path / "sweep").mkdir()
    with pytest.raises(ValueError, match="subpath"):
        spools(tmp_path / "sweep", dead(), "0a").log_front(FRONT, Figure(), [tmp_path / "x"], OBJECTIVES)
