"""What the doctor finds, with each fault made for real where a test can make it."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from snnsweep import doctor, doctor_machine, doctor_servers

PATIENCE_S = 300
LOOK = """
import json
from dataclasses import asdict
from pathlib import Path
from snnsweep import doctor_machine, doctor_servers
found = [*doctor_machine.examine(Path("sweeps")), *doctor_servers.examine(), doctor_machine.neurons()]
print(json.dumps([asdict(each) for each in found]))
"""


def test_a_machine_with_many_faults(tmp_path: Path):
    """No home, no compiler, few files, an MLflow that is down, a token for all to read; each with what mends it."""
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(0o644)
    environment = os.environ | {
        "PATH": str(tmp_path),
        "HOME": "/nonexistent/home",
        "MLFLOW_TRACKING_URI": "http://me:hunter2@127.0.0.1:1",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
    }
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop("CC", None)
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    )
    assert "hunter2" not in done.stdout + done.stderr
    found = {each["what"]: each for each in json.loads(done.stdout)}
    for what, said, mend in (
        ("home folder", "/nonexistent/home", "export HOME="),
        ("neurons on the CPU", "no C compiler", "apt-get install gcc"),
        ("open files", "1024", "ulimit -Hn"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1 does not answer", "mlflow server --host 127.0.0.1 --port 1"),
        ("Ray's token", "token", f"chmod 600 {tmp_path / 'token'}"),
    ):
        assert said in found[what]["found"], found[what]
        assert mend in found[what]["mend"], found[what]


@contextmanager
def answering(code: int) -> Iterator[int]:
    """The port of a server that answers everything with that code."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_an_mlflow_that_answers_refuses_or_checks_the_host():
    with answering(200) as port:
        assert doctor_servers.mlflow(f"http://me:hunter2@127.0.0.1:{port}").mend == ""
    with answering(401) as port:
        assert "answers 401" in doctor_servers.mlflow(f"http://127.0.0.1:{port}").found
    with answering(403) as port:
        assert "--allowed-hosts 127.0.0.1" in doctor_servers.mlflow(f"http://127.0.0.1:{port}").mend
    assert "hunter2" not in doctor_servers.mlflow("postgresql://me:hunter2@host/x").found


def test_what_a_machine_has_too_little_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert doctor_machine.disk(tmp_path / "sweeps", little=0).mend == ""
    assert "--storage" in doctor_machine.disk(tmp_path / "sweeps", little=1e18).mend
    if doctor_machine.SHM.is_dir():
        assert doctor_machine.shared_memory(little=0).mend == ""
        assert "--shm-size" in doctor_machine.shared_memory(little=1e18).mend
    assert doctor_machine.clock().mend == ""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert "set-ntp" in doctor_machine.clock().mend


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_gpu_that_torch_is_not_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The driver's tool is replaced by one that tells of a GPU: none is at hand."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "trials run on the CPU" in doctor_machine.accelerator().found
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, 0, 3, 81559'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built for the CPU" in doctor_machine.accelerator().found
    assert "pip install --force-reinstall torch==" in doctor_machine.accelerator().mend
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "driver for CUDA 13.0" in doctor_machine.accelerator().mend


@pytest.mark.parametrize(
    ("family", "fits"),
    [
        (("2.11.0", "0.26.0", "2.11.0"), True),
        (("2.15.0", "0.30.0", "2.11.0"), False),
        (("2.10.0+cpu", "0.25.0", "2.10.0+cpu"), True),
        (("2.11.0+cpu", "0.26.0+cu130", "2.11.0"), False),
        (("2.11.0", None, "2.11.0"), False),
    ],
)
def test_torch_and_its_family(family: tuple[str, str | None, str], fits: bool):
    found = doctor.torch_family(*family)
    assert bool(found.mend) != fits
    assert fits or found.mend.startswith("pip install torch==2.11.0 torchvision==0.26.0")


def test_a_module_that_cannot_be_imported_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mlflow.py").write_text("raise ImportError('half installed')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    found = doctor._import("mlflow")
    assert (found.found, found.mend) == ("ImportError: half installed", "pip install -U mlflow")


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def head(folder: Path, **environment: str) -> Iterator[int]:
    """A real head whose dashboard listens on every address; its port."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    ports = dict(zip((*names, "ray-client-server-port", "metrics-export-port"), free_ports(6), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += ["--num-cpus=1", "--include-dashboard=true", "--dashboard-host=0.0.0.0"]
    binaries = Path(sys.executable).parent
    command = [str(binaries / "ray"), "start", "--head", "--block", f"--temp-dir={tempfile.mkdtemp()}", *options]
    given: dict[str, Any] = {"cwd": folder, "env": os.environ | environment, "start_new_session": True}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **given)
    try:
        end = time.monotonic() + PATIENCE_S
        while "Ray runtime started" not in (folder / "log").read_text():
            assert time.monotonic() < end, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.3)
        yield ports["dashboard-port"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)


@pytest.mark.slow
def test_a_dashboard_that_is_open_to_everybody(tmp_path: Path):
    with head(tmp_path, RAY_AUTH_MODE="disabled") as port:
        (found,) = (each for each in doctor_servers.dashboards() if f":{port}" in each.found)
    assert found.found == f"0.0.0.0:{port} asks for no token: whoever reaches it runs code here"
    assert "RAY_AUTH_MODE=token ray start --head --dashboard-host=127.0.0.1" in found.mend


def test_how_dashboards_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their command lines as Ray writes them, and servers that answer as they would."""
    monkeypatch.setattr(doctor_servers, "PROCESSES", tmp_path)
    with answering(200) as open_one, answering(401) as guarded:
        given = {"0.0.0.0": guarded, "127.0.0.1": open_one}
        for number, (host, port) in enumerate(given.items()):
            (tmp_path / str(number)).mkdir()
            words = ["python", "/x/ray/dashboard/dashboard.py", f"--host={host}", f"--port={port}", ""]
            (tmp_path / str(number) / "cmdline").write_text("\0".join(words))
        found = [(each.found, each.mend) for each in doctor_servers.dashboards()]
    assert found == [
        (f"0.0.0.0:{guarded} asks for a token", ""),
        (f"127.0.0.1:{open_one} asks for no token: whoever is on this machine runs code as its owner", ""),
    ]
