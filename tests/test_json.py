"""What scripts build on: with --json every command has JSON on stdout and nothing else, progress goes to stderr."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snnsweep.cli import main

TINY = (
    '"""Does it run?"""\n'
    'FIXED = {"model.depth": 10, "model.width": 0.125, "train.epochs": 1, "data.subset": 100, "attack.samples": 10}\n'
    "def space(trial):\n"
    '    trial.suggest_float("neuron.v_threshold", 0.3, 0.5)\n'
    "    return FIXED\n"
)
PRINTS_A_SCRIPT = {"completion"}
ELSEWHERE = {
    "run": "the fixture",
    "ui": "below",
    "doctor": "tests/test_cli.py",
    "submit": "tests/sweep/test_submit.py",
    "report": "with its own tests",
}
# What they are asked, and keys of the answer.
ASKED: dict[str, tuple[list[str], set[str]]] = {
    "resume": (["s"], {"folder", "status", "trials", "front", "mixes", "untold", "resume"}),
    "trial": (["tiny.py"], {"trial_id", "status", "neuron.v_threshold", "robust_accuracy", "warnings"}),
    "check": (["tiny.py"], {"variants", "memory", "worker_hours", "sampled", "hardware"}),
    "front": (["s"], {"folder", "objectives", "front", "mixes"}),
    "mix": (["s", "t0000", "t0001"], {"trial_id", "weight", "robust_accuracy", "report"}),
    "confirm": (
        ["s", "--seeds", "0", "--suite", "quick", "--samples", "10", "--top", "1"],
        {"members", "pairs", "report"},
    ),
    "list": ([], {"neurons", "keys", "spaces"}),
    "sync": (["s"], {"folder", "delivered"}),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    (folder / "tiny.py").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def ran(home: Path) -> "subprocess.CompletedProcess[str]":
    """A sweep of two trials, by the command itself."""
    given = ["run", "tiny.py", "--trials", "2", "--name", "s", "--sampler", "random", "--json"]
    return subprocess.run([sys.executable, "-m", "snnsweep.cli", *given], cwd=home, capture_output=True, text=True)


@pytest.fixture
def there(home: Path, ran: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def strict(text: str) -> Any:
    """NaN and the infinities are no JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))


def test_run(ran: "subprocess.CompletedProcess[str]", home: Path):
    assert ran.returncode == 0, ran.stderr
    found = strict(ran.stdout)
    assert (found["status"], found["trials"], found["resume"]) == ("finished", {"finished": 2}, None)
    assert {row["trial_id"] for row in found["front"]} <= {"t0000", "t0001"}
    lines = ran.stderr.splitlines()
    assert any(line.startswith("2/2 t000") for line in lines)
    digest = hashlib.sha256(TINY.encode()).hexdigest()
    told = [line for line in lines if "sha256" in line]
    assert told == [f"runs the code of {home / 'tiny.py'}, sha256 {digest}"]
    assert lines.index(told[0]) == 0
    assert json.loads((home / "sweeps" / "s" / "sweep.json").read_text())["space"]["sha256"] == digest


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_takes_it(command: str):
    options = {option for param in main.commands[command].params for option in param.opts}
    assert ("--json" in options) == (command not in PRINTS_A_SCRIPT)
    assert command in ASKED or command in ELSEWHERE or command in PRINTS_A_SCRIPT, "say here what it is asked"


@pytest.mark.parametrize("command", ASKED)
def test_stdout_is_json_alone(command: str, there: Path, capfd: pytest.CaptureFixture[str]):
    given, keys = ASKED[command]
    with pytest.raises(SystemExit) as ended:
        main([command, *given, "--json"])
    said = capfd.readouterr()
    assert ended.value.code == 0, said.err
    assert keys <= set(strict(said.out))
    runs_it = command in ("resume", "trial", "check", "mix", "confirm")
    assert said.err.count("runs the code of ") == runs_it, said.err


def test_an_error_is_words_on_stderr_and_the_exit_code(there: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["front", "nothing", "--json"])
    said = capfd.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith("error: no sweep in ")


def test_a_text_that_is_the_files_no_more_is_said_to_be(there: Path, capfd: pytest.CaptureFixture[str]):
    (there / "tiny.py").write_text(TINY + "# more\n")
    try:
        with pytest.raises(SystemExit):
            main(["mix", "s", "t0000", "t0001", "--weight", "0.25", "--json"])
    finally:
        (there / "tiny.py").write_text(TINY)
    assert "(the text that its sweep has kept: the file is another one by now, or gone)" in capfd.readouterr().err


def test_ui_says_where_and_only_here(there: Path):
    """It becomes MLflow's server, which listens on the loopback address alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "snnsweep.cli", "ui", "s", "--port", str(port), "--json"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet, text=True, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}) as server:
        try:
            assert server.stdout
            text = ""
            while not text.rstrip().endswith("}"):
                line = server.stdout.readline()
                assert line, text
                text += line
            assert strict(text)["url"].startswith(f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()
            server.wait(timeout=30)
