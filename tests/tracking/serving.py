"""MLflow servers that live, die and keep silent, and what is in them."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from snnsweep.tracking.address import server_command


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(
    folder: Path, database: str, artifacts: Path, port: int | None = None
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    port = port or free_port()
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


class Relay:
    """A port that leads to a server, and can be closed and opened again; ends what runs through it when it closes."""

    def __init__(self, to: int):
        self.to, self.port = to, free_port()
        self._ends: list[socket.socket] = []
        self._door: socket.socket | None = None

    def open(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._door,), daemon=True).start()

    def close(self) -> None:
        for end in (self._door, *self._ends):
            with suppress(OSError, AttributeError):
                end.shutdown(socket.SHUT_RDWR)
            with suppress(OSError, AttributeError):
                end.close()
        self._ends.clear()

    def _accept(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, far = door.accept()[0], socket.create_connection(("127.0.0.1", self.to))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def children(client: MlflowClient, sweep: str) -> dict[str, Run]:
    run = client.get_run(sweep)
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{sweep}'")
    trials = {child.data.tags["snnsweep.trial_id"]: child for child in found}
    assert len(trials) == len(found), "a trial has two runs"
    return trials


def history(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float, int]]]:
    """Every point of every metric, as (step, value, time)."""
    return {
        name: sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def everything(client: MlflowClient, sweep: str) -> dict[str, Any]:
    """All that MLflow knows of a sweep and its trials, by trial id; the sweep's own is ""."""
    runs = {"": client.get_run(sweep), **children(client, sweep)}
    return {
        trial_id: (run.info, run.data.params, run.data.tags, history(client, run)) for trial_id, run in runs.items()
    }
