"""A test for each promise of docs/security.md that no other file keeps."""

import ast
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial
from serving import server

import snnsweep
from snnsweep.sweep.tries import every_loss_is_a_death
from snnsweep.tracking.address import server_command

PACKAGE = Path(snnsweep.__file__).parent
RUNS_CODE = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
ONE_PLACE = {"exec": "sweep/space.py", "compile": "sweep/space.py"}  # a space file is code, and said to be


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_that_is_read_can_run_code(file: Path):
    tree = ast.parse(file.read_text())
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules |= {node.module or "" for node in froms} | {name.name for node in froms for name in node.names}
    assert not modules & RUNS_CODE
    for call in calls(tree):
        name, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name == "torch.load":
            assert given.get("weights_only") == "True"
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle") == "False"
        assert name not in ("eval", "yaml.load", "yaml.unsafe_load", "os.system", "pd.read_pickle")
        assert given.get("shell", "False") == "False"
        if name in ONE_PLACE:
            assert file.relative_to(PACKAGE).as_posix() == ONE_PLACE[name]


class Trap:
    """Its pickle makes a file when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_an_error_that_somebody_put_into_the_storage_is_not_unpickled(tmp_path: Path):
    """Ray itself would: it reads its trials' errors back from there when all is over."""
    storage = StorageContext(str(tmp_path), "ray", trial_dir_name="t0000")
    trial = Trial("x", stub=True, storage=storage, trial_id="t0000")
    trial.run_metadata.pickled_error_filename = "error.pkl"
    folder = Path(storage.trial_fs_path)
    folder.mkdir(parents=True)
    (folder / "error.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with every_loss_is_a_death():
        assert trial.get_pickled_error() is None
    assert not (tmp_path / "ran").exists()
    trial.get_pickled_error()
    assert (tmp_path / "ran").exists()  # so it would have been seen


@pytest.mark.parametrize("restoring", [False, True])
def test_the_error_of_a_trial_is_written_nowhere_by_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restoring: bool
):
    """Ray itself would put its text and its pickle beside the trial's state, and send both to the storage."""
    text = "cannot reach http://me:hunter2@host/x"
    error = RayTaskError("step", f"ray::train()\nOSError: {text}", OSError(text)).as_instanceof_cause()
    storage = StorageContext(str(tmp_path), "ray", trial_dir_name="t0000")
    monkeypatch.setattr("ray.train._internal.storage._get_ray_train_session_dir", lambda: str(tmp_path / "session"))
    trial = Trial("x", stub=True, storage=storage, trial_id="t0000")
    if restoring:
        trial.temporary_state.restoring_from = object()
    trial.init_local_path()
    with every_loss_is_a_death():
        trial.handle_error(error)
        assert trial.get_pickled_error() is error
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]
    assert (trial.error_file, trial.pickled_error_file) == (None, None)
    assert trial.run_metadata.num_failures + trial.temporary_state.num_restore_failures == 1
    trial.handle_error(error)
    assert "hunter2" in Path(trial.error_file).read_text()  # so it would have been seen


def test_mlflow_is_served_on_the_loopback_address_alone():
    command = server_command("sqlite:////x/mlflow.db", Path("/x"), 5000)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--allowed-hosts" not in command


SPACE = '''"""Does a secret come out?"""
import os
from snnsweep import neurons

@neurons.register("indiscreet")
class Indiscreet(neurons.get("lif")):
    """Fails, and tells of an address."""

    def forward(self, x):
        raise RuntimeError("cannot read " + os.environ["WEIGHTS"])

FIXED = {"model.depth": 10, "model.width": 0.125, "train.epochs": 1, "data.subset": 64, "attack.samples": 8}

def space(trial):
    trial.suggest_categorical("neuron.name", ["indiscreet", "lif"])
    return FIXED
'''
RUN = """
import json, os, re, stat, sys, urllib.request, urllib.error
from pathlib import Path
from snnsweep import Sweep

def ports():
    open_ones = {}
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(file).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                open_ones[words[9]] = int(words[1].rpartition(":")[2], 16)
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = file.read_text()
        except OSError:
            continue
        parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(text.split()[0]))
    todo, found = [os.getpid()], set()
    while todo:
        pid = todo.pop()
        todo += parents.get(pid, [])
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                match = re.fullmatch(r"socket:\\[(\\d+)\\]", os.readlink(link))
            except OSError:
                continue
            if match and match[1] in open_ones:
                found.add(open_ones[match[1]])
    return found

def takes_jobs(port):
    for path in ("/api/jobs/", "/api/job_agent/jobs/"):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", b'{"entrypoint": "id"}')
        try:
            urllib.request.urlopen(asked, timeout=3).close()
            return True
        except Exception:
            pass
    return False

seen = {}
def look(progress):
    if not seen:
        seen.update(ports=len(ports()), jobs=[port for port in ports() if takes_jobs(port)])

sweep = Sweep("space.py", 2, storage="sweeps", name="s", sampler="grid", tracking_uri=sys.argv[2], listener=look).run()
seen["mode"] = os.environ.get("RAY_AUTH_MODE")
seen["status"] = sweep.results()["status"].tolist()
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_no_secret_is_in_what_a_sweep_leaves_and_nobody_else_can_use_its_cluster(tmp_path: Path):
    """As it is started without any setting of Ray's; Linux, whose /proc says who listens."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("no /proc: nobody says what listens")
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "home").mkdir()
    (tmp_path / "mlflow").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"HOME": str(tmp_path / "home"), "WEIGHTS": "https://me:hunter2@host/weights?token=hunter2"}
    with server(tmp_path / "mlflow", f"sqlite:///{tmp_path}/mlflow/mlflow.db", tmp_path / "mlflow") as (uri, _):
        command = [sys.executable, "-c", RUN, "--tracking-uri", uri.replace("://", "://me:hunter2@")]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found["status"]) == ["failed", "finished"]
    assert (found["mode"], found["jobs"]) == ("token", [])
    assert found["ports"] > 3  # Ray's, which were all asked
    token = tmp_path / "home" / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    secrets = {"hunter2": b"hunter2", "the token": token.read_bytes().strip()}
    left = [file for file in tmp_path.rglob("*") if file.is_file() and file != token]
    assert any(file.parent.name == "errors" for file in left)
    said = {what: [str(file) for file in left if text in file.read_bytes()] for what, text in secrets.items()}
    assert said == {"hunter2": [], "the token": []}
    assert "hunter2" not in done.stdout + done.stderr
