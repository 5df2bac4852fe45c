"""A sweep that was ended or killed goes on: through a real Ray, Optuna and MLflow, on real digits."""

import json
import os
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
import pytest
import ray

from snnsweep import ResumedSweep, Sweep, load_results
from snnsweep.errors import SnnSweepError, UserError
from snnsweep.sweep import tries, tuning
from snnsweep.sweep.cluster import start_here
from snnsweep.sweep.lock import alone_in
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.sync import bring_up_to_date

FIXED = (
    'FIXED = {"model.depth": 10, "model.width": 0.125, "train.epochs": 2, "data.subset": 100, '
    '"encoder.time_steps": 2, "attack.samples": 12, "threat.eps": 0.1}\n'
)
PLAIN = (
    f'"""Does it go on?"""\n{FIXED}def space(trial):\n'
    '    trial.suggest_float("neuron.v_threshold", 0.2, 1.0)\n    return FIXED\n'
)
RUNGS = 'RUNGS = {"grace": 1, "eta": 2, "samples": 12}\n'


@pytest.fixture(scope="module", autouse=True)
def one_cluster():
    start_here(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Four trials, of which some were stopped at the rung."""
    folder = tmp_path_factory.mktemp("ended")
    (folder / "plain.py").write_text(RUNGS + PLAIN)
    one = {"max_concurrent": 1}  # who is stopped depends on who comes to the rung first
    return Sweep(folder / "plain.py", 4, storage=folder / "sweeps", name="s", sampler="random", **one).run()


def study_of(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    return optuna.load_study(study_name=folder.name, storage=optuna.storages.JournalStorage(backend))


def runs_of(sweep: Sweep) -> dict[str, mlflow.entities.Run]:
    client = mlflow.MlflowClient(sweep.tracking_uri)
    experiment = client.get_experiment_by_name(sweep.space.name)
    runs = client.search_runs([experiment.experiment_id], "tags.`snnsweep.role` = 'trial'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def test_who_falls_behind_is_stopped_told_and_never_on_the_front(ended: Sweep):
    rows = ended.results().set_index("trial_id")
    stopped, finished = rows[rows["status"] == "stopped"], rows[rows["status"] == "finished"]
    assert len(stopped) >= 1
    assert len(stopped) + len(finished) == 4
    assert set(stopped["cause"]) == {"rung of epoch 1: not among the best 1 in 2"}
    assert set(stopped["epochs"]) == {1}
    assert stopped["robust_accuracy"].isna().all()  # 12 samples under `quick` are no figure of the end
    assert rows["rung/robust_accuracy"].notna().all()
    assert set(ended.front()["trial_id"]) <= set(finished.index)
    study = study_of(ended.folder)
    for name, row in stopped.iterrows():
        told = study.trials[int(name[1:])]
        at_rung = [row[f"rung/{metric}"] for metric in ended.space.objectives]
        assert (told.state.name, told.values, told.constraints) == ("COMPLETE", at_rung, {"not_finished": 0.5})
        run = runs_of(ended)[name]
        assert (run.info.status, run.data.tags["status"]) == ("KILLED", "stopped")
        assert run.data.metrics["rung/robust_accuracy"] == row["rung/robust_accuracy"]


def test_more_trials(ended: Sweep):
    before = ended.results()
    more = ResumedSweep(ended.folder, 6).run()
    after = more.results()
    pd.testing.assert_frame_equal(after.iloc[:4][before.columns], before)
    assert sorted(after["trial_id"]) == [f"t000{number}" for number in range(6)]
    assert after["neuron.v_threshold"].nunique() == 6  # the sampler does not draw its first ones again
    assert len(runs_of(more)) == 6
    facts = json.loads((ended.folder / "sweep.json").read_text())
    assert (facts["trials"], facts["status"], [start["trials"] for start in facts["resumed"]]) == (6, "finished", [6])
    assert facts["started"] < facts["resumed"][0]["started"] <= facts["ended"]
    again = ResumedSweep(ended.folder).run()  # nothing is left to do
    pd.testing.assert_frame_equal(again.results(), after)


HELD = """
import time
from pathlib import Path
from types import SimpleNamespace
from snnsweep import neurons
CALLS = []

@neurons.register("held")
class Held(neurons.get("lif")):
    '''Waits, in the second epoch or the third, until a file is there.'''

    def forward(self, x):
        CALLS.append(self.training)
        while sum(CALLS) > 2 * 13 and not Path(MARK).exists():  # neurons
            time.sleep(0.05)
        return super().forward(x)
"""


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(tmp_path: Path):
    """Killed by SIGKILL, and what Ray had written is destroyed as well."""
    held = '"train.epochs": 6, "data.batch_size": 100'  # one batch an epoch
    text = PLAIN.replace('"train.epochs": 2', held)
    text = text.replace("return FIXED", 'return FIXED | ({"neuron.name": "held"} if trial.number > 1 else {})')
    (tmp_path / "plain.py").write_text(text + HELD.replace("MARK", repr(str(tmp_path / "mark"))))
    command = [sys.executable, "-m", "snnsweep.cli", "run", "plain.py", "--trials", "5", "--name", "s"]
    folder = tmp_path / "sweeps" / "s"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while not (len(ended_before(folder)) == 2 and set(epochs_told(folder)) - {"t0000", "t0001"}):
            assert driver.poll() is None
            time.sleep(0.05)
        with pytest.raises(UserError, match="another process is at work there"), alone_in(folder):
            pass
        os.kill(driver.pid, signal.SIGKILL)
    before = ended_before(folder)
    assert sorted(before) == ["t0000", "t0001"]
    unended = set(range(5)) & {trial.number for trial in study_of(folder).trials} - {int(i[1:]) for i in before}
    assert unended
    (folder / "ray" / "tuner.pkl").write_bytes(b"cut short")
    (tmp_path / "mark").touch()
    resumed = ResumedSweep(folder).run()
    rows = resumed.results().set_index("trial_id")
    assert {name: rows.loc[name, "robust_accuracy"] for name in before} == before
    assert sorted(rows.index) == [f"t000{number}" for number in range(5)]
    assert set(rows["epochs"]) == {6}
    assert rows["neuron.v_threshold"].nunique() == 5
    assert {trial.state.name for trial in study_of(folder).trials} == {"COMPLETE"}
    assert {run.info.status for run in runs_of(resumed).values()} == {"FINISHED"}
    assert len(runs_of(resumed)) == 5
    assert sum(epochs_told(folder).values()) <= 5 * 6 + len(unended)  # at most an epoch of what was running


def ended_before(folder: Path) -> dict[str, float]:
    try:
        return load_results(folder).set_index("trial_id")["robust_accuracy"].to_dict()
    except (UserError, KeyError):
        return {}


def epochs_told(folder: Path) -> dict[str, int]:
    """How often an epoch was trained and told, by trial."""
    found: dict[str, int] = {}
    file = folder / "tracking.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        if '"log_epoch"' in line and line.endswith("}}}"):
            trial = json.loads(line)["said"]["trial_id"]
            found[trial] = found.get(trial, 0) + 1
    return found


def test_an_interrupted_sweep_goes_on_where_its_trials_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hour is over as soon as a trial has two epochs."""
    (tmp_path / "plain.py").write_text(PLAIN.replace('"train.epochs": 2', '"train.epochs": 20'))
    clock = [1.0]
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def watch(progress: Progress) -> None:
        clock[0] += 3601 * (max(progress.running.values(), default=0) == 2)

    given = {"storage": tmp_path / "sweeps", "name": "s", "listener": watch}
    sweep = Sweep(tmp_path / "plain.py", 2, time_budget=3600, **given).run()
    rows = sweep.results()
    assert (sweep.status, sweep.unended, set(rows["cause"])) == ("out of time", True, {"the time budget ended"})
    assert {trial.state.name for trial in study_of(sweep.folder).trials} == {"RUNNING"}
    resumed = ResumedSweep(sweep.folder).run()
    again = resumed.results()
    assert (resumed.status, set(again["status"]), set(again["epochs"])) == ("finished", {"finished"}, {20})
    columns = ["trial_id", "neuron.v_threshold"]
    assert sorted(map(tuple, again[columns].values)) == sorted(map(tuple, rows[columns].values))
    assert sum(epochs_told(sweep.folder).values()) <= 2 * 20 + 2
    assert bring_up_to_date(sweep.folder) == 0


ONCE = """
from pathlib import Path
from snnsweep import neurons

@neurons.register("once")
class Once(neurons.get("lif")):
    '''Fails until a file is there.'''

    def forward(self, x):
        if not Path(MARK).exists(): raise RuntimeError("no file")
        return super().forward(x)
"""


def test_a_failed_trial_is_chosen_once_more_as_a_new_one(tmp_path: Path, storage_in: Callable[[Path], Path]):
    text = PLAIN.replace("FIXED = {", 'FIXED = {"neuron.name": "once", ')
    (tmp_path / "once.py").write_text(ONCE.replace("MARK", repr(str(tmp_path / "mark"))) + text)
    sweep = Sweep(tmp_path / "once.py", 1, storage=storage_in(tmp_path), name="s").run()
    assert sweep.results()["status"].tolist() == ["failed"]
    (tmp_path / "mark").touch()
    rows = ResumedSweep(sweep.folder, retry_failed=True).run().results()
    assert rows[["trial_id", "status"]].values.tolist() == [["t0000", "failed"], ["t0001", "finished"]]
    assert rows["neuron.v_threshold"].nunique() == 1
    told = study_of(sweep.folder).trials[1]
    assert told.values == rows[list(sweep.space.objectives)].iloc[1].tolist()
    again = ResumedSweep(sweep.folder, retry_failed=True).run()  # it was, and finished
    assert len(again.results()) == len(study_of(sweep.folder).trials) == 2
    os.rename(sweep.folder, sweep.folder.with_name("other"))
    with pytest.raises(UserError, match="is called 's'"):
        ResumedSweep(sweep.folder.with_name("other")).run()


def test_what_a_resume_refuses(ended: Sweep, tmp_path: Path):
    with pytest.raises(UserError, match=r"--trials 2: [46] have ended already"):
        ResumedSweep(ended.folder, 2).run()
    space, text = Path(ended.space.source), ended.space.text
    space.write_text(text.replace("1.0", "1.5"))
    with pytest.raises(UserError, match=r"plain.py has changed since the sweep began.*--allow-changed"):
        ResumedSweep(ended.folder).run()
    space.write_text(text + 'OBJECTIVES = ("clean_accuracy",)\n')
    with pytest.raises(UserError, match="start a new sweep"):
        ResumedSweep(ended.folder, allow_changed=True).run()
    space.write_text(text.replace('"eta": 2', '"eta": 3'))
    with pytest.raises(UserError, match="eta: 2 then, 3 now"):
        ResumedSweep(ended.folder, allow_changed=True).run()
    space.write_text(text.replace('trial.suggest_float("neuron.v_threshold", 0.2, 1.0)',
                                  'trial.suggest_int("neuron.v_threshold", 1, 2)'))  # fmt: skip
    with pytest.raises(UserError, match=r"neuron.v_threshold: was a float from 0.2 to 1; now an int"):
        ResumedSweep(ended.folder, allow_changed=True).run()
    space.write_text(text)
    facts = (ended.folder / "sweep.json").read_text()
    (ended.folder / "sweep.json").write_text(facts.replace('"torch": "', '"torch": "1.'))
    with pytest.raises(UserError, match=r"torch is 2\S+, and was 1\."):
        ResumedSweep(ended.folder).run()
    (ended.folder / "sweep.json").write_text(facts)
    with pytest.raises(UserError, match="no sweep in"):
        ResumedSweep(tmp_path)


SICK = (
    "import pathlib, torch\nfrom snnsweep import neurons\n"
    '@neurons.register("met")\nclass Met(neurons.get("lif")):\n'
    '    """On a GPU that is ill, as long as the file is there."""\n'
    "    def forward(self, x):\n"
    '        if pathlib.Path("ILL").exists(): raise torch.AcceleratorError("CUDA error: uncorrectable ECC error")\n'
    "        return super().forward(x)\n"
    f"{FIXED}def space(trial):\n"
    '    trial.suggest_float("neuron.v_threshold", 0.2, 1.0)\n'
    '    return FIXED | ({"neuron.name": "met"} if trial.number == 0 else {})\n'
)


def test_a_trial_that_no_machine_brings_to_an_end_is_open_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in (tries, tuning):
        monkeypatch.setattr(module, "LOST_WORKERS", 0)  # each try is a process, which takes seconds to start
    ill = tmp_path / "ill"
    ill.touch()
    (tmp_path / "sick.py").write_text(SICK.replace("ILL", str(ill)))
    given = {"storage": tmp_path / "sweeps", "name": "s", "sampler": "random", "max_concurrent": 1}
    with pytest.raises(SnnSweepError, match=r"1 trial has no end, .*t0000: AcceleratorError: .*ECC.*snnsweep resume"):
        Sweep(tmp_path / "sick.py", 2, **given).run()
    folder = tmp_path / "sweeps" / "s"
    rows = load_results(folder).set_index("trial_id")
    assert rows["status"].to_dict() == {"t0000": "stopped", "t0001": "finished"}
    assert rows.loc["t0000", "cause"] == "its machines failed"
    assert [trial.state.name for trial in study_of(folder).trials] == ["RUNNING", "COMPLETE"]
    ill.unlink()
    whole = ResumedSweep(folder).run()
    assert whole.status == "finished"
    assert whole.results().set_index("trial_id")["status"].to_dict() == {"t0000": "finished", "t0001": "finished"}
    assert {trial.state.name for trial in study_of(folder).trials} == {"COMPLETE"}
