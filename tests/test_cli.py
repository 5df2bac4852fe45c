"""The command line as its users meet it; most of all what it does with input that is wrong."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from snnsweep.cli import main
from snnsweep.config import DEFAULTS
from snnsweep.sweep import estimate

TINY = (
    '"""Does it run?"""\n'
    'FIXED = {"model.depth": 10, "model.width": 0.125, "train.epochs": 1, "data.subset": 100, "attack.samples": 10}\n'
    "def space(trial):\n"
    '    trial.suggest_float("neuron.v_threshold", 0.3, 0.5)\n'
    "    return FIXED\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNNSWEEP_DATA", raising=False)
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


def call(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def refused(result: Result, *words: str) -> None:
    """Exit code 2, a message with those words, no traceback, nothing written."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output, result.output
    assert sorted(os.listdir()) in (["tiny.py"], ["bad.py", "tiny.py"])


BAD_SPACES = {
    "def space(trial):\n"
    "    return {'neuron.v_treshold': 1, 'encoder.time_steps': 0, 'threat.eps': 1.5, 'model.name': 'resne'}": [
        "4 mistakes",
        "did you mean neuron.v_threshold?",
        "encoder.time_steps: input should be greater than or equal to 1; given 0",
        "threat.eps: in linf no pixel can move further than 1; given 1.5",
        "unknown model 'resne'; did you mean resnet?",
    ],
    "x = 1": ["has no function `space(trial)`"],
    "def space(trial): raise KeyError('thing')": ["bad.py, line 1", "KeyError"],
    "def space(trial: int": ["bad.py, line 1"],
    "OBJECTIVES = ('robust_acuracy',)\ndef space(trial): return {}": ["did you mean robust_accuracy?"],
    "OBJECTIVES = ('robust_accuracy/pgd7',)\ndef space(trial): return {}": ["robust_accuracy/pgd"],
    "OBJECTIVES = ('gradient_sparsity/zero_share/stem.pol',)\ndef space(trial): return {}": ["stem.pool?"],
    "def space(trial): return {'data.name': 'cifar10'}": ["python -m snnsweep.data cifar10 --data-dir"],
    "def space(trial): return {'data.subset': 100000}": ["data.subset", "1294"],
    "def space(trial): return {'device': 'cuda:99'}": ["cuda"],
    "def space(trial): return {1: 2}": ["1: unknown key"],
    "OBJECTIVES = 5\ndef space(trial): return {}": ["OBJECTIVES is 5"],
    "OBJECTIVES = (1, 2)\ndef space(trial): return {}": ["OBJECTIVES is (1, 2)"],
    "raise SystemExit(0)": ["SystemExit"],
    "def space(trial): trial.suggest_int('data.subset', 1000, 4000)": ["data.subset"],
    "from snnsweep import data\n@data.register('own_images')\nclass Own:\n    'Gone.'\n"
    "    spec = data.get('digits').spec\n    def read(self, folder): open('nowhere.npz')\n"
    "def space(trial): return {'data.name': 'own_images'}": ["own_images", "FileNotFoundError"],
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("text", BAD_SPACES, ids=range(len(BAD_SPACES)))
def test_a_bad_space_ends_with_2_and_writes_nothing(command: str, text: str, here: Path):
    (here / "bad.py").write_text(text)
    refused(call(command, "bad.py"), *BAD_SPACES[text])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "nothing.py"], ["nothing.py", "No such file"]),
        (["rum", "tiny.py"], ["did you mean run?"]),
        (["run", "tiny.py", "--trails", "3"], ["--trials"]),
        (["run", "tiny.py", "--trials", "0"], ["--trials", "x>=1"]),
        (["run", "tiny.py", "--trials", "x"], ["'x'"]),
        (
            ["run", "--trials", "0", "--seed", "-1", "--gpus-per-trial", "many", "--name", "fine"],
            ["'--trials': 0", "'--seed': -1", "'many' is neither", "Missing argument 'SPACE'"],
        ),
        (["run", "tiny.py", "--sampler", "tpee"], ["did you mean tpe?"]),
        (["run", "tiny.py", "--name", "a/b"], ["--name"]),
        (["run", "tiny.py", "--name", "n" * 300], ["--name"]),
        (["run", "tiny.py", "--storage", "s" * 300], ["--storage"]),
        (["run", "tiny.py", "--storage", "a?b"], ["--storage"]),
        (["run", "tiny.py", "--time-budget", "nan"], ["--time-budget"]),
        (
            ["run", "tiny.py", "--sampler", "x", "--name", "a/b", "--tracking-uri", "ftp://x"],
            ["sampler", "--name", "ftp"],
        ),
        (["check", "tiny.py", "--trials", "-3"], ["--trials"]),
        (
            ["run", "tiny.py", "--gpus-per-trial", "-1", "--name", ".x", "--time-budget", "0"],
            ["--gpus", "--name", "--time-budget"],
        ),
        (["trial", "tiny.py", "--set", "neuron.v_treshold=1"], ["did you mean neuron.v_threshold?"]),
        (
            ["trial", "tiny.py", "--set", "threat.eps=8/0", "--set", "encoder.time_steps=0"],
            ["threat.eps", "time_steps"],
        ),
        (["trial", "tiny.py", "--set", "neuron.tau"], ["KEY=VALUE"]),
        (["trial", "tiny.py", "--set", "data.name=cifar100"], ["python -m snnsweep.data cifar100"]),
        (["run", "tiny.py", "--seed", "-4"], ["--seed"]),
        (["front", "nothing"], ["nothing"]),
        (["ui", "nothing"], ["nothing"]),
        (["list", "neuron"], ["did you mean neurons?"]),
        (["run", "tiny.py", "--address", "127.0.0.1:1"], ["--address 127.0.0.1:1"]),
        (["run", "tiny.py", "--gpus-per-trial", "many"], ["'many' is neither a number nor auto"]),
        (["resume", "nothing"], ["no sweep in"]),
        (["resume", "nothing", "--trials", "0"], ["--trials"]),
        (["sync", "nothing"], ["no sweep in"]),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_bad_input_ends_with_2(args: list[str], words: list[str]):
    refused(call(*args), *words)


def test_a_sweep_of_that_name_exists(here: Path):
    (here / "sweeps" / "mine" / "ray").mkdir(parents=True)
    result = call("run", "tiny.py", "--name", "mine")
    assert result.exit_code == 2
    assert "a sweep of that name exists" in result.output
    assert os.listdir(here / "sweeps") == ["mine"]


def test_a_folder_that_cannot_be_written(here: Path):
    (here / "file").write_text("")
    result = call("run", "tiny.py", "--storage", "file/sweeps")
    assert result.exit_code == 2
    assert "not a folder that can be written to" in result.output


def test_a_read_only_folder(here: Path):
    """Root may write everywhere, so a root first becomes somebody else."""
    (here / "locked").mkdir(mode=0o555)
    here.chmod(0o755)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom snnsweep.sweep.preflight import folder_is_free\n"
        "from snnsweep.errors import UserError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "os.chdir('/')\n"
        "try: folder_is_free(Path(sys.argv[1]), 'mine', True)\n"
        "except UserError as error: print(error)\n"
    )
    given = str(here / "locked" / "sweeps")
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"--storage {given}: ")
    assert "give another --storage" in done.stdout


def test_a_tracking_server_that_does_not_answer(here: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
    result = call("run", "tiny.py", "--tracking-uri", address)
    refused(result, "cannot be used", "--tracking-uri")
    assert "secret" not in result.output


def test_trial_prints_the_result_and_json(here: Path):
    result = call("trial", "tiny.py", "--set", "neuron.v_threshold=0.4", "--set", "threat.eps=4/255", "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert (row["neuron.v_threshold"], row["threat.eps"], row["status"]) == (0.4, 4 / 255, "finished")
    assert 0 <= row["robust_accuracy"] <= row["robust_accuracy/clean"] <= 1
    shown = call("trial", "tiny.py", "--set", "neuron.v_threshold=0.4", "--set", "threat.eps=4/255")
    assert "robust_accuracy" in shown.stdout
    assert os.listdir(here) == ["tiny.py"]


def test_a_trial_that_diverges_ends_with_3():
    result = call("trial", "tiny.py", "--set", "train.lr=1e30", "--set", "train.optimizer=sgd")
    assert result.exit_code == 3
    assert "Diverged" in result.stdout


MEMORY = ("train_bytes", "attack_bytes")


def test_check_says_the_cost_and_writes_nothing(here: Path):
    report = json.loads(call("check", "tiny.py", "--trials", "7", "--json").stdout)
    assert report["trials"] == 7
    assert all(variant["parameters"] > 1000 and variant["train_s"] > 0 for variant in report["variants"])
    assert report["memory"]["variant"]["model.width"] == 0.125
    assert all(report["memory"][name] is None or 0 < report["memory"][name] < 2**30 for name in MEMORY)
    assert os.listdir(here) == ["tiny.py"]


OWN = (
    "'Is [/b] printed as it is?'\n"
    "from snnsweep import neurons\n"
    "@neurons.register('own_neuron')\n"
    "class Own(neurons.SpikingNeuron):\n"
    "    'v + x.'\n"
    "    def charge(self, v, x): return v + x\n" + TINY.partition("\n")[2]
)


def test_trial_knows_the_parts_of_the_file(here: Path):
    (here / "bad.py").write_text(OWN)
    result = call("trial", "bad.py", "--set", "neuron.name=own_neuron", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["neuron.name"] == "own_neuron"


def test_what_the_user_wrote_is_no_markup(here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "bad.py").write_text(OWN)
    monkeypatch.setattr(estimate, "ENOUGH_S", 0)  # after which no further variant is measured
    shown = call("check", "bad.py")
    assert shown.exit_code == 0
    assert "1 of 16 sampled variants" in shown.output
    assert "from one variant alone" in shown.output
    assert "Is [/b] printed as it is?" in shown.output
    assert "memory of " in shown.output


def test_a_folder_that_holds_another_json(here: Path):
    (here / "sweeps" / "odd").mkdir(parents=True)
    (here / "sweeps" / "odd" / "sweep.json").write_text("{}")
    for command in ("front", "ui"):
        result = call(command, "odd")
        assert result.exit_code == 2
        assert "is not what a sweep writes" in result.output


def test_list_names_every_part():
    parts = json.loads(call("list", "--json").stdout)
    assert {"lif", "if", "plif"} <= set(parts["neurons"])
    assert set(parts["suites"]) >= {"quick", "trail"}
    assert all(about for kind in parts.values() for about in kind.values())
    assert "poisson" in call("list", "encoders").stdout


def test_list_tells_every_key_with_its_default():
    keys = json.loads(call("list", "keys", "--json").stdout)["keys"]
    assert list(keys) == list(DEFAULTS)
    for key, about in keys.items():
        text, _, default = about.rpartition(" (default ")
        assert text.strip(), key
        assert default == f"{DEFAULTS[key]})"
    assert "max, avg, stride, none" in keys["model.pooling"]


def test_doctor_finds_a_healthy_machine_and_json():
    result = call("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == (1 if any(finding["mend"] for finding in findings.values()) else 0)
    assert findings["torch"]["mend"] == ""
    assert findings["data: digits"]["found"] == "there"
    assert "python -m snnsweep.data cifar10" in findings["data: cifar10"]["found"]
    assert (findings["data: cifar10"]["absent"], findings["data: digits"]["absent"]) == (True, False)


def test_help_is_quick_and_loads_nothing_heavy():
    code = "import sys; from snnsweep.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'ray', 'optuna', 'mlflow', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_run_shows_the_front_and_the_way_on(here: Path):
    result = call("run", "tiny.py", "--trials", "2", "--name", "s", "--sampler", "random")
    assert result.exit_code == 0, result.output
    assert "2/2" in result.stderr
    assert "The front" in result.stdout
    assert f"snnsweep ui {here / 'sweeps' / 's'}" in result.stdout
    assert f"report  {here / 'sweeps' / 's' / 'report' / 'index.html'}" in result.stdout
    assert "robust_accuracy" in (here / "sweeps" / "s" / "report" / "index.html").read_text()
    again = json.loads(call("front", "s", "--json").stdout)
    assert 1 <= len(again["front"]) <= 2
    assert set(again["objectives"]) == {"clean_accuracy", "robust_accuracy", "gradient_sparsity"}
    assert call("front", "sweeps/s").exit_code == 0
    assert "did you mean s?" in call("front", "ss").output
    refused_again = call("run", "tiny.py", "--name", "s")
    assert refused_again.exit_code == 2
