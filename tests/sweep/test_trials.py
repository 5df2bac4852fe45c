"""Models of finished trials, and mixes of two of them, from a real sweep."""

import hashlib
import json
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from click.testing import CliRunner

from snnsweep import Sweep, load_results
from snnsweep.cli import main
from snnsweep.errors import UserError
from snnsweep.measurement import Measurement
from snnsweep.results import store
from snnsweep.sweep.confirm import Confirmation
from snnsweep.sweep.trials import load_trial, mix

SPACE = '''"""Natural or attacked at training?"""
from snnsweep import neurons
@neurons.register("slow")
class Slow(neurons.SpikingNeuron):
    """v <- 0.9 v + x."""
    def charge(self, v, x):
        return 0.9 * v + x
FIXED = {
    "model.depth": 10, "model.width": 0.125, "train.epochs": 4, "data.subset": 600, "encoder.time_steps": 2,
    "train.lr": 1e-2, "attack.samples": 60, "neuron.name": "slow", "train.eps": 0.1, "train.attack_steps": 2,
    "threat.eps": 0.1,
}
CALLS = []
def space(trial):
    CALLS.append(trial)
    number = len(CALLS) - 17  # after the probes
    if number == 2: raise ValueError("a rare branch")
    return FIXED | [{}, {"train.objective": "adversarial"}, {}, {"threat.eps": 0.05, "neuron.noise": 0.2}][number % 4]
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trials")
    (home / "two.py").write_text(SPACE)
    sweep = Sweep(home / "two.py", 4, storage=home / "sweeps", name="s", sampler="random", max_concurrent=1).run()
    assert sorted(sweep.results()["status"]) == ["failed", "finished", "finished", "finished"]
    return sweep.folder


def figures(metrics: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def test_a_loaded_trial_gives_its_figures_again(folder: Path) -> None:
    """Bit for bit: weights, data, attacks and measures are those of the row."""
    trial = load_trial(folder, "t0001")
    assert trial.config.train.objective == "adversarial"
    assert not trial.model.training
    row = load_results(folder).set_index("trial_id").loc["t0001"]
    again = figures(Measurement(trial.model, trial.config, trial.data).run().metrics)
    assert again == {name: row[name] for name in again}


def test_a_mix_stands_beside_the_front(folder: Path) -> None:
    row = mix(folder, "t0000", "t0001", 0.5)
    kept = store.load_mixes(folder)
    assert kept.iloc[0]["trial_id"] == row["trial_id"] == "t0000+t0001@0.5"
    assert kept.iloc[0]["clean_accuracy"] == row["clean_accuracy"]
    assert 0 <= row["robust_accuracy"] <= row["robust_accuracy/clean"] <= 1
    assert len(load_results(folder)) == 4  # no trial of the sweep
    again = mix(folder, "t0000", "t0001", 0.5)
    assert figures(again) == figures(row)
    assert len(store.load_mixes(folder)) == 1


def test_its_ends_are_the_two_trials(folder: Path) -> None:
    rows = load_results(folder).set_index("trial_id")
    for weight, trial_id in ((0.0, "t0000"), (1.0, "t0001")):
        row = mix(folder, "t0000", "t0001", weight)
        assert row["clean_accuracy"] == rows.loc[trial_id, "clean_accuracy"]
        for name in ("", "/zero_share", "/hoyer", "/weights", "/weights_zero_share"):
            assert row[f"gradient_sparsity{name}"] == pytest.approx(
                rows.loc[trial_id, f"gradient_sparsity{name}"], abs=1e-6
            )


def test_a_mix_of_noisy_trials_draws_by_the_seed(folder: Path) -> None:
    first = mix(folder, "t0003", "t0003", 0.5)
    torch.rand(3)
    assert figures(mix(folder, "t0003", "t0003", 0.5)) == figures(first)
    assert "robust_accuracy/unattacked" in first


def test_a_mix_is_a_run_of_its_own_under_the_sweep(folder: Path) -> None:
    for _ in range(2):
        mix(folder, "t0000", "t0001", 0.25)
    facts = store.load_sweep(folder)
    client = mlflow.MlflowClient(facts["tracking_uri"])
    query = "tags.`snnsweep.role` = 'mix' and params.weight = '0.25'"
    (run,) = client.search_runs([facts["mlflow_experiment_id"]], query)
    assert run.data.tags["mlflow.parentRunId"] == facts["mlflow_run_id"]
    assert (run.data.params["standard"], run.data.params["robust"]) == ("t0000", "t0001")
    assert run.info.status == "FINISHED"
    assert 0 <= run.data.metrics["robust_accuracy"] <= 1
    assert run.data.tags["audit"] in ("pass: no sign found", "suspect", "fail")
    assert client.get_run(facts["mlflow_run_id"]).info.status == "FINISHED"


def test_from_the_command_line(folder: Path) -> None:
    shown = CliRunner().invoke(main, ["mix", str(folder), "t0000", "t0001", "--weight", "0.5"])
    assert shown.exit_code == 0, shown.output
    assert "Mixes of two trials" in shown.output
    assert "beat" in shown.output
    again = CliRunner().invoke(main, ["front", str(folder), "--json"])
    assert "t0000+t0001@0.5" in [one["trial_id"] for one in json.loads(again.output)["mixes"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("t0000", "t001", 0.5), r"no trial 't001' in .*; did you mean t000"),
        (("t0000", "t0002", 0.5), r"trial t0002 failed \(.*a rare branch.*\); take one that finished"),
        (("t0000", "t0003", 0.5), r"judged alike\nthreat.eps: 0.1 in t0000, 0.05 in t0003"),
        (("t0000", "t0001", 1.5), r"--weight 1.5: it is the robust trial's share, from 0 to 1"),
    ],
)
def test_what_cannot_be_mixed(folder: Path, arguments: tuple[str, str, float], says: str) -> None:
    before = len(store.load_mixes(folder))
    with pytest.raises(UserError, match=says):
        mix(folder, *arguments)
    assert len(store.load_mixes(folder)) == before


def test_a_lost_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "s")
    shutil.rmtree(copy / "ray" / "t0000")
    with pytest.raises(UserError, match=r"t0000 has no checkpoint that can be read under .*/s"):
        load_trial(copy, "t0000")


def test_checkpoints_are_read_without_pickle(folder: Path) -> None:
    (state,) = (folder / "ray" / "t0000").glob("checkpoint_*/state.pt")
    assert set(torch.load(state, weights_only=True)) == {"model", "result", "traceback", "flat", "texts", "sweep"}


@pytest.mark.parametrize("short", [0, 1])
def test_weights_after_the_last_epoch_are_those_of_the_end(folder: Path, tmp_path: Path, short: int) -> None:
    """A crash came before the last checkpoint; one of fewer epochs is no model of that trial."""
    copy = shutil.copytree(folder, tmp_path / "s")
    (path,) = (copy / "ray" / "t0000").glob("checkpoint_*/state.pt")
    ended = torch.load(path, weights_only=True)
    epochs = ended["flat"]["train.epochs"] - short
    torch.save({"trainer": {"model": ended["model"], "epochs_done": epochs}, "flat": ended["flat"]}, path)
    if short:
        with pytest.raises(UserError, match="no checkpoint"):
            load_trial(copy, "t0000")
    else:
        found = load_trial(copy, "t0000").model.state_dict()
        assert all(torch.equal(found[name].cpu(), value) for name, value in ended["model"].items())


def test_a_trial_is_built_again_with_the_text_that_it_ran_with(folder: Path, tmp_path: Path) -> None:
    """A resume with another text replaced the one that the first trials ran with."""
    copy = shutil.copytree(folder, tmp_path / "s")
    facts = store.load_sweep(copy)
    text = facts["space"]["text"].replace("return 0.9 * v + x", "return 0.1 * v")
    now = {"source": "two.py", "text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    resumed = [{"space_before": facts["space"]}]
    store.write_json(copy / "sweep.json", facts | {"space": now, "resumed": resumed})
    rows = load_results(copy).set_index("trial_id")
    assert set(rows["space_sha256"]) == {facts["space"]["sha256"]} != {now["sha256"]}

    trial = load_trial(copy, "t0001")
    again = figures(Measurement(trial.model, trial.config, trial.data).run().metrics)
    assert again == {name: rows.loc["t0001", name] for name in again}
    assert figures(mix(copy, "t0000", "t0001", 0.5)) == figures(mix(folder, "t0000", "t0001", 0.5))

    ran = Confirmation(copy, seeds=1, suite="quick", samples=20, top=1)
    ran._check()
    assert {text: space.text for text, space in ran.spaces.items()} == {facts["space"]["sha256"]: SPACE}
    assert {pair["space_sha256"] for pair in ran.pairs} == {facts["space"]["sha256"]}

    store.write_json(copy / "sweep.json", facts | {"space": now})
    with pytest.raises(UserError, match=r"sweep.json has no text of it with the hash"):
        load_trial(copy, "t0001")
