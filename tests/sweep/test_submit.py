"""`snnsweep submit`: what a user gives wrong, and a sweep that runs on a real cluster through its Jobs API."""

import http.server
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from snnsweep.cli import main
from snnsweep.results import store
from snnsweep.sweep import submit as submitting

TINY = (
    '"""Does it run?"""\n'
    'FIXED = {"model.depth": 10, "model.width": 0.125, "train.epochs": EPOCHS, "data.subset": 100, '
    '"attack.samples": 10}\n'
    "def space(trial):\n"
    '    trial.suggest_float("neuron.v_threshold", 0.3, 0.5)\n'
    "    return FIXED\n"
)
NOBODY = "http://127.0.0.1:1"
PATIENCE_S = 600  # on a machine that has much else to do


def write(folder: Path, name: str, epochs: int = 1) -> Path:
    path = folder / name
    path.write_text(TINY.replace("EPOCHS", str(epochs)))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "tiny.py")
    return tmp_path


def call(*args: str) -> Result:
    return CliRunner().invoke(main, ["submit", *args])


@contextmanager
def answering(page: dict[str, str] | None) -> Iterator[str]:
    """The address of a server that says `page` to everything; to None it has only a 501."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    def say(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(json.dumps(page).encode())

    if page is not None:
        Handler.do_GET = say  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def silent() -> Iterator[str]:
    """The address of somebody who takes calls and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


NOT_RAY: dict[str, Any] = {
    "refuses": lambda: nullcontext(NOBODY),
    "no such host": lambda: nullcontext("http://nowhere.invalid:8265"),
    "is silent": silent,
    "is no server of pages": lambda: answering(None),
    "is another's": lambda: answering({"name": "something else"}),
}


GIVEN = ("tiny.py", "--storage", "/mnt/shared/sweeps")
MISTAKES = {
    "no space": (["nothing.py", "--storage", "/s"], ["nothing.py", "No such file"]),
    "no storage": (["tiny.py"], ["--storage"]),
    "relative storage": (["tiny.py", "--storage", "sweeps"], ["--storage sweeps", "absolute"]),
    "relative data": ([*GIVEN, "--data-dir", "data"], ["--data-dir data", "absolute"]),
    "relative warm start": ([*GIVEN, "--warm-start", "old"], ["--warm-start old", "absolute"]),
    "name": ([*GIVEN, "--name", "a/b"], ["--name 'a/b'", "no slash"]),
    "trials": ([*GIVEN, "--trials", "0"], ["--trials", "x>=1"]),
    "unknown": ([*GIVEN, "--trails", "3"], ["--trials"]),
    "gcs address": ([*GIVEN, "--address", "10.0.0.1:6379"], ["10.0.0.1:6379", "http://127.0.0.1:8265"]),
    "outside": ([*GIVEN, "--working-dir", "sub"], ["--working-dir sub", "tiny.py is not in it"]),
    "all at once": (["tiny.py", "--storage", "s", "--name", ".x"], ["--storage s", "--name '.x'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_told_before_anything_is_sent(mistake: str, here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "sub").mkdir()
    monkeypatch.setattr(submitting, "_client", lambda address: pytest.fail("it was sent"))
    args, words = MISTAKES[mistake]
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output


def test_a_space_that_breaks_is_told_here_and_not_in_a_log_far_away(here: Path):
    (here / "bad.py").write_text("x = 1")
    result = call("bad.py", "--storage", "/s", "--address", NOBODY)
    assert result.exit_code == 2
    assert "has no function `space(trial)`" in result.output


@pytest.mark.parametrize("kind", NOT_RAY)
def test_an_address_where_no_ray_is(kind: str, here: Path, monkeypatch: pytest.MonkeyPatch):
    """One line, exit code 2, in seconds: by itself Ray's client waits for ever where a machine is silent."""
    monkeypatch.setattr(submitting, "PATIENCE_S", 1)
    begun = time.monotonic()
    with NOT_RAY[kind]() as address:
        result = call(*GIVEN, "--address", address)
    assert time.monotonic() - begun < PATIENCE_S
    assert result.exit_code == 2, result.output
    assert f"--address {address}: no Ray dashboard answers" in result.output
    said = [line for line in result.output.strip().splitlines() if not line.startswith("runs the code of ")]
    assert len(said) == 1


def test_without_the_extra_it_names_it(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submitting, "find_spec", lambda name: None)
    result = call(*GIVEN)
    assert result.exit_code == 2
    assert 'pip install "snnsweep[cluster]"' in result.output


@pytest.mark.parametrize("option", ["--tracking-uri", "--address"])
def test_a_password_is_neither_sent_nor_shown(option: str, here: Path):
    result = call(*GIVEN, "--address", NOBODY, option, "http://me:hunter2@127.0.0.1:1")
    assert result.exit_code == 2
    assert "hunter2" not in result.output
    assert "***@127.0.0.1:1" in result.output


class Deaf:
    """A client that takes a job and keeps it."""

    def __init__(self) -> None:
        self.taken: dict[str, Any] = {}

    def list_jobs(self) -> list[Any]:
        return []

    def submit_job(self, **job: Any) -> None:
        self.taken = job | {"sent": sorted(os.listdir(job["runtime_env"]["working_dir"]))}


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Deaf:
    client = Deaf()
    monkeypatch.setattr(submitting, "_client", lambda address: client)
    return client


def test_the_command_is_read_back_as_it_was_given(here: Path, deaf: Deaf):
    """A shell splits it, `run` parses it: what comes out is what went in, odd characters and all."""
    odd = "it's $(rm -rf) 4"
    args = ["--trials", "7", "--name", odd, "--gpus-per-trial", "0.5", "--smoke", "--tracking-uri", "http://h:5000"]
    assert call(*GIVEN, "--data-dir", "/mnt/my data", *args).exit_code == 0
    words = shlex.split(deaf.taken["entrypoint"])
    assert words[:2] == ["snnsweep", "run"]
    run = main.get_command(click.Context(main), "run")
    assert run is not None
    read = run.make_context("run", words[2:]).params
    expected = {"space": "tiny.py", "trials": 7, "name": odd, "gpus_per_trial": 0.5, "smoke": True, "address": "auto"}
    expected |= {"storage": Path("/mnt/shared/sweeps"), "data_dir": Path("/mnt/my data")}
    expected |= {"tracking_uri": "http://h:5000", "seed": 0, "sampler": "tpe", "max_concurrent": None}
    assert {key: read[key] for key in expected} == expected
    assert "--seed" not in words  # what was not given is for the cluster's own version to choose
    assert deaf.taken["submission_id"] == odd
    assert deaf.taken["sent"] == ["tiny.py"]


def test_every_option_of_run_is_an_option_of_submit():
    run, submit = (main.get_command(click.Context(main), name) for name in ("run", "submit"))
    assert run is not None
    assert submit is not None
    named = [{param.name for param in command.params} for command in (run, submit)]
    assert named[0] - named[1] == set()
    assert named[1] - named[0] == {"working_dir"}


def test_a_working_dir_travels_whole_and_the_space_is_named_within(here: Path, deaf: Deaf):
    (here / "spaces").mkdir()
    write(here / "spaces", "mine.py")
    assert call("spaces/mine.py", "--storage", "/s", "--working-dir", ".").exit_code == 0
    assert shlex.split(deaf.taken["entrypoint"])[2] == "spaces/mine.py"
    assert deaf.taken["sent"] == ["spaces", "tiny.py"]


def test_the_ways_on_name_the_job_and_the_sweep(here: Path, deaf: Deaf):
    result = call(*GIVEN, "--name", "mine")
    shown = [line for line in result.stdout.splitlines() if line.startswith(("follow", "stop", "resume"))]
    at = "--address http://127.0.0.1:8265"
    patience = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}}'
    again = "snnsweep resume /mnt/shared/sweeps/mine --address auto"
    assert [line.split(maxsplit=1)[1] for line in shown] == [
        f"ray job logs mine --follow {at}",
        f"ray job stop mine {at}",
        f"ray job submit {at} --no-wait --runtime-env-json '{patience}' -- {again}",
    ]


def test_the_address_given_wins_over_what_the_shell_has(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Ray lets RAY_ADDRESS win, so that the job would go elsewhere without a word."""
    monkeypatch.setenv("RAY_ADDRESS", NOBODY)
    with answering({"ray_version": "2.60.0"}) as address:
        assert submitting._client(address)._address == address


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's address of a real head with two CPUs, on ports and in a folder of its own."""
    home = tmp_path_factory.mktemp("head")
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    ports = dict(zip((*names, "ray-client-server-port", "metrics-export-port"), free_ports(6), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", "--include-dashboard=true"]
    binaries = Path(sys.executable).parent
    command = [str(binaries / "ray"), "start", "--head", "--block", f"--temp-dir={tempfile.mkdtemp()}", *options]
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}"}
    with (home / "log").open("wb") as log:
        head = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait(lambda: "Ray runtime started" in (home / "log").read_text(), lambda: (home / "log").read_text())
        yield address
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(PATIENCE_S)


def wait(done: Any, said: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, said()
        time.sleep(0.3)


@pytest.mark.slow
def test_a_real_job_runs_is_refused_twice_and_stops_in_order(cluster: str, here: Path):
    from ray.job_submission import JobStatus, JobSubmissionClient

    sweeps = here / "sweeps"
    where = ["--storage", str(sweeps), "--address", cluster, "--sampler", "random"]
    handed_over = call("tiny.py", *where, "--name", "one", "--trials", "1", "--json")
    assert handed_over.exit_code == 0
    told = json.loads(handed_over.stdout)
    assert (told["name"], told["folder"]) == ("one", str(sweeps / "one"))
    assert told["ways_on"]["follow"].startswith("ray job logs one --follow")
    assert handed_over.stderr.count("runs the code of ") == 1
    client = JobSubmissionClient(cluster)
    wait(lambda: client.get_job_status("one").is_terminal(), lambda: client.get_job_logs("one"))
    assert client.get_job_status("one") == JobStatus.SUCCEEDED, client.get_job_logs("one")
    assert store.load_results(sweeps / "one")["status"].tolist() == ["finished"]
    log = client.get_job_logs("one")
    assert "\n1/1 t0000 finished  clean_accuracy " in log
    assert "\x1b" not in log  # plain lines, for whoever follows it

    again = call("tiny.py", *where, "--name", "one")
    assert again.exit_code == 2
    assert "--name one: the cluster has a job of that name (succeeded)" in again.output

    write(here, "long.py", epochs=5000)
    assert call("long.py", *where, "--name", "two").exit_code == 0
    wait(lambda: list(sweeps.glob("two/**/checkpoint_*")), lambda: client.get_job_logs("two"))
    client.stop_job("two")
    wait(lambda: client.get_job_status("two").is_terminal(), lambda: client.get_job_logs("two"))
    assert client.get_job_status("two") == JobStatus.STOPPED
    assert store.load_sweep(sweeps / "two")["status"] == "interrupted"  # it had the time to end in order


@pytest.mark.slow
def test_a_cluster_that_wants_another_token(cluster: str, here: Path, tmp_path: Path):
    """In a process of its own: Ray reads a token once."""
    (tmp_path / "token").write_text("f" * 64)
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    command = [sys.executable, "-m", "snnsweep.cli", "submit", "tiny.py", "--storage", "/s", "--address", cluster]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "asks for the cluster's token" in done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert "f" * 64 not in done.stdout + done.stderr
