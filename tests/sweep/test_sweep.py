"""Whole sweeps through a real Ray, Optuna and MLflow, on real digits."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlflow
import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray

from snnsweep import Sweep, TrialConfig, evaluate, load_results
from snnsweep.config import DEFAULTS
from snnsweep.results.front import front
from snnsweep.results.store import load_front
from snnsweep.sweep import tuning
from snnsweep.sweep.cluster import start_here
from snnsweep.sweep.watch import Progress

TINY = """
FIXED = {
    "model.depth": 10, "model.width": 0.125, "train.epochs": 2, "data.subset": 200, "encoder.time_steps": 2,
    "train.lr": 5e-3, "attack.samples": 30, "threat.eps": 0.1, "neuron.v_threshold": 0.4,
}
"""
# What the sixteen probes of the preflight do not meet: number 1 raises here, 2 in a worker, 3 diverges.
TROUBLE = (
    '"""Does the sweep go on?"""\n'
    "from snnsweep import neurons\n"
    '@neurons.register("broken")\n'
    "class Broken(neurons.SpikingNeuron):\n"
    '    """Raises."""\n'
    "    def forward(self, x):\n"
    '        raise RuntimeError("boom in forward")\n' + TINY + "CALLS = []\n"
    "def space(trial):\n"
    "    CALLS.append(trial.number)\n"
    '    trial.suggest_categorical("model.residual", ["sew_add", "spiking", "membrane"])\n'
    "    real = len(CALLS) > 16\n"
    '    if real and trial.number == 1: raise ValueError("a rare branch")\n'
    '    if real and trial.number == 2: return FIXED | {"neuron.name": "broken"}\n'
    '    if real and trial.number == 3: return FIXED | {"train.lr": 1e30, "train.optimizer": "sgd"}\n'
    "    return FIXED\n"
)
PLAIN = (
    '"""Which residual?"""\n' + TINY + "def space(trial):\n"
    '    trial.suggest_categorical("model.residual", ["sew_add", "spiking", "membrane"])\n    return FIXED\n'
)


@pytest.fixture(scope="module", autouse=True)
def one_cluster():
    """One local cluster for the whole file: starting one takes ten seconds."""
    start_here(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory, storage_in: Callable[[Path], Path]) -> Sweep:
    folder = tmp_path_factory.mktemp("troubled")
    (folder / "trouble.py").write_text(TROUBLE)
    return Sweep(folder / "trouble.py", 6, storage=storage_in(folder), name="s", sampler="random", seed=1).run()


PER_EPOCH = ("train/loss", "train/lr", "time/epoch_s", "system/")


def test_every_trial_has_a_row_and_the_failed_have_their_cause(troubled: Sweep):
    rows = troubled.results().set_index("trial_id").sort_index()
    assert list(rows.index) == [f"t000{number}" for number in range(6)]
    assert rows["status"].tolist() == ["finished", "failed", "failed", "failed", "finished", "finished"]
    assert "a rare branch" in rows.loc["t0001", "cause"]
    assert rows.loc["t0002", "cause"] == "RuntimeError: boom in forward"
    assert rows.loc["t0003", "cause"].startswith("Diverged: ")
    assert "boom in forward" in (troubled.folder / "errors" / "t0002.txt").read_text()


def test_optuna_was_told_all_of_them(troubled: Sweep):
    backend = optuna.storages.journal.JournalFileBackend(str(troubled.folder / "study.log"))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    assert all(math.isfinite(value) for trial in study.trials for value in trial.values)
    assert [trial.constraints["not_finished"] for trial in study.trials] == [0, 1, 1, 1, 0, 0]


def test_parquet_mlflow_and_python_tell_the_same(troubled: Sweep):
    client = mlflow.MlflowClient(troubled.tracking_uri)
    experiment = client.get_experiment_by_name("trouble")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    rows = troubled.results().set_index("trial_id")
    parent = runs.pop("s")
    assert set(runs) == set(rows.index)
    for name, run in runs.items():
        assert run.data.tags["status"] == rows.loc[name, "status"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == ("FINISHED" if rows.loc[name, "status"] == "finished" else "FAILED")
        shown = {key: value for key, value in run.data.metrics.items() if not key.startswith(PER_EPOCH)}
        told = rows.loc[name, list(shown)].to_dict()
        assert shown == told
        assert len(told) > 40 or rows.loc[name, "status"] != "finished"
    members = troubled.front()
    pd.testing.assert_frame_equal(members, load_front(troubled.folder))
    assert {name for name, run in runs.items() if run.data.tags.get("pareto") == "true"} == set(members["trial_id"])
    assert {"front.png", "front.json", "results.parquet", "front.parquet", "sweep.json"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    pd.testing.assert_frame_equal(members, front(load_results(troubled.folder), troubled.space.objectives))


def test_provenance(troubled: Sweep):
    facts = json.loads((troubled.folder / "sweep.json").read_text())
    assert facts["space"]["text"] == TROUBLE
    assert (facts["status"], facts["seed"], facts["sampler"]) == ("finished", 1, "random")
    assert facts["tracking_uri"].startswith("sqlite:///")
    assert facts["mlflow_run_id"]
    assert b"snnsweep" in pq.read_schema(troubled.folder / "results.parquet").metadata


def test_a_logged_config_alone_gives_the_trials_figures_again(troubled: Sweep):
    """Actors are reused; a trial must not feel those before it."""
    rows = troubled.results()
    for row in rows[rows["status"] == "finished"].to_dict("records"):
        again = evaluate(TrialConfig.from_flat({key: row[key] for key in DEFAULTS}))
        assert {name: row[name] for name in again.metrics if not name.startswith("time/")} == {
            name: value for name, value in again.metrics.items() if not name.startswith("time/")
        }


MORTAL = """
import os, signal
from pathlib import Path
from snnsweep import neurons
MARK, CALLS = Path(os.environ["SNNSWEEP_TEST_MARK"]), []

@neurons.register("mortal")
class Mortal(neurons.get("lif")):
    '''Kills its process once, in training, after three epochs.'''

    def forward(self, x):
        CALLS.append(self.training)
        if sum(CALLS) > 3 * 4 * 13 and not MARK.exists():  # batches of an epoch, neurons
            MARK.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

@neurons.register("stillborn")
class Stillborn(neurons.get("lif")):
    '''Kills its process once, a worker of Ray's, where it is made.'''

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        if "RAY_RAYLET_PID" in os.environ and not MARK.with_name("unborn").exists():
            MARK.with_name("unborn").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lost_worker_costs_no_trial(tmp_path: Path):
    """Killed in the fourth epoch, the trial goes on from its checkpoint in another process; and the next one, whose
    death Ray is told of twice, for it is being set up in a process that was used before, in another run of Ray's.
    """
    mark = tmp_path / "killed"
    text = MORTAL.replace('os.environ["SNNSWEEP_TEST_MARK"]', repr(str(mark)))
    fixed = TINY.replace('"train.epochs": 2', '"train.epochs": 5, "neuron.name": "mortal"')
    other = '{"neuron.name": "stillborn", "train.epochs": 1}'
    space = f"def space(trial): return FIXED | ({other} if trial.number else {{}})\n"
    (tmp_path / "mortal.py").write_text(f'"""Is it lost?"""\n{text}{fixed}{space}')
    epochs: list[int] = []

    def watch(progress: Progress) -> None:
        if "t0000" in progress.running:
            epochs.append(progress.running["t0000"])

    given = {"storage": tmp_path / "sweeps", "name": "s", "max_concurrent": 1}
    sweep = Sweep(tmp_path / "mortal.py", 2, listener=watch, **given).run()
    assert mark.exists()
    assert sweep.results()[["status", "epochs"]].values.tolist() == [["finished", 5], ["finished", 1]]
    assert sorted(path.name for path in sweep.folder.glob("ray*")) == ["ray", "ray-2"]
    assert list(dict.fromkeys(epochs)) == [0, 1, 2, 3, 4, 5]
    assert epochs == sorted(epochs)  # no epoch that had ended was trained again
    untouched = evaluate(TrialConfig.from_flat({**sweep.results().iloc[0][list(DEFAULTS)], "neuron.name": "lif"}))
    assert sweep.results().iloc[0]["robust_accuracy"] == untouched.robust_accuracy
    assert sweep.results().iloc[0]["gradient_sparsity"] == untouched.gradient_sparsity


def test_the_front_can_be_looked_at_while_it_runs_and_no_git_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage_in: Callable[[Path], Path]
):
    (tmp_path / "plain.py").write_text(PLAIN)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["snnsweep", "run", "--tracking-uri", "http://user:secret@host"])
    seen: list[tuple[int, int]] = []

    def look(progress: Progress) -> None:
        if progress.done:
            seen.append((progress.done, len(load_front(sweep.folder))))

    sweep = Sweep(tmp_path / "plain.py", 2, storage=storage_in(tmp_path), name="s", listener=look)
    sweep.run()
    assert seen[0] == (1, 1)
    assert "secret" not in (sweep.folder / "sweep.json").read_text()
    assert b"secret" not in (sweep.folder / "results.parquet").read_bytes()


def test_a_time_budget_leaves_stopped_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hour is over as soon as an epoch is."""
    (tmp_path / "plain.py").write_text(PLAIN.replace('"train.epochs": 2', '"train.epochs": 500'))
    clock = [1.0]
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def watch(progress: Progress) -> None:
        clock[0] += 3601 * any(progress.running.values())

    given = {"storage": tmp_path / "sweeps", "name": "s", "listener": watch}
    sweep = Sweep(tmp_path / "plain.py", 4, time_budget=3600, **given).run()
    rows = sweep.results()
    assert set(rows["status"]) == {"stopped"}
    assert set(rows["cause"]) == {"the time budget ended"}
    assert sweep.front().empty
    assert not sweep.interrupted


@pytest.mark.slow
def test_ctrl_c_leaves_a_sweep_that_can_be_looked_at(tmp_path: Path):
    first = '({"train.epochs": 3000} if trial.number else {})'  # and the others are still at it when it has ended
    (tmp_path / "plain.py").write_text(PLAIN.replace("return FIXED", f"return FIXED | {first}"))
    command = [sys.executable, "-m", "snnsweep.cli", "run", "plain.py", "--trials", "6", "--name", "s"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        results = tmp_path / "sweeps" / "s" / "results.parquet"
        while not results.exists() and running.poll() is None:
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=600)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "The front" in out
    rows = load_results(tmp_path / "sweeps" / "s")
    assert {"finished", "stopped"} >= set(rows["status"])
    assert json.loads((tmp_path / "sweeps" / "s" / "sweep.json").read_text())["status"] == "interrupted"
