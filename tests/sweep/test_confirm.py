"""Confirmations of a real sweep on digits, through a real Ray."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray
from click.testing import CliRunner, Result

from snnsweep import Sweep, load_results
from snnsweep.cli import main
from snnsweep.config import TrialConfig
from snnsweep.data import Data
from snnsweep.errors import UserError
from snnsweep.measurement import Measurement
from snnsweep.results import store
from snnsweep.sweep.cluster import start_here
from snnsweep.sweep.confirm import Confirmation
from snnsweep.sweep.lock import alone_in
from snnsweep.sweep.trials import load_trial
from snnsweep.sweep.watch import Progress
from snnsweep.terminal import out
from snnsweep.terminal_confirm import show_confirmation

SPACE = '''"""Which threshold?"""
from snnsweep import data, neurons
from snnsweep.attacks import suites
from snnsweep.attacks.gradient import FGSM

@data.register("mine")
class Mine:
    """Digits; where the folder says so, the test labels are wrong."""
    spec = data.get("digits").spec
    def read(self, folder):
        found = data.instance(data.get("digits")).read(folder)
        wrong = (folder / "wrong").exists()
        return data.Arrays(found.train_x, found.train_y, found.test_x, (found.test_y + wrong) % 10)

@neurons.register("slow")
class Slow(neurons.SpikingNeuron):
    """v <- 0.9 v + x."""
    def charge(self, v, x):
        return 0.9 * v + x

@suites.register("borrowing")
def borrowing():
    """FGSM, then transfer."""
    return suites.Suite((suites.Step("fgsm", FGSM()),), {"attack.samples": 40}, transfers=True)

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
FIXED = {
    "data.name": "mine", "model.depth": 10, "model.width": 0.125, "train.epochs": 2, "data.subset": 300,
    "encoder.time_steps": 2, "train.lr": 1e-2, "attack.samples": 50, "neuron.name": "slow", "threat.eps": 0.05,
}
def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.3, 0.9)
    return FIXED
'''


@pytest.fixture(scope="module", autouse=True)
def one_cluster() -> Iterator[None]:
    """One local cluster for the whole file: starting one takes ten seconds."""
    start_here(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, storage_in: Callable[[Path], Path]) -> Path:
    home = tmp_path_factory.mktemp("confirm")
    (home / "space.py").write_text(SPACE)
    sweep = Sweep(home / "space.py", 3, storage=storage_in(home), name="s", seed=1, sampler="random").run()
    assert len(sweep.front()) >= 2, sweep.results()
    return sweep.folder


def call(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["confirm", str(folder), *arguments])


def figures(row: dict) -> dict:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


@pytest.fixture(scope="module")
def confirmed(folder: Path) -> dict:
    shown = call(folder, "--seeds", "1", "--suite", "quick", "--samples", "40", "--json")
    assert shown.exit_code == 0, shown.output
    said = json.loads(shown.stdout)
    assert "The front was not confirmed" not in Path(said.pop("report")).read_text()
    return said


def test_members_are_trained_again_with_a_fresh_seed_and_judged_on_the_test_split(
    folder: Path, confirmed: dict
) -> None:
    members = store.load_front(folder)
    rows = store.load_results(folder / "confirm")
    assert sorted(rows["member"]) == sorted(members["trial_id"])
    assert confirmed["seeds"] == [0]  # the smallest that no trial had; the sweep's is 1
    assert set(rows["seed"]) == {0}
    assert set(rows["split"]) == {"test"}
    row = rows.iloc[0]
    (state,) = (folder / "confirm").glob(f"ray*/{row['trial_id']}/checkpoint_*/state.pt")
    assert state.stat().st_size
    assert row["robust_accuracy/n"] == 40
    assert row["clean_accuracy/n"] == 359  # the fixed fifth of the digits; the validation split has 144
    assert row["clean_accuracy"] != members.set_index("trial_id").loc[row["member"], "clean_accuracy"]


def test_what_is_reported_is_what_the_rows_say(folder: Path, confirmed: dict) -> None:
    rows = store.load_results(folder / "confirm").set_index("member")
    before = load_results(folder).set_index("trial_id")
    for one in confirmed["members"]:
        name = one["trial_id"]
        assert one["before"]["robust_accuracy"]["value"] == before.loc[name, "robust_accuracy"]
        assert one["after"]["robust_accuracy"] == {
            "value": rows.loc[name, "robust_accuracy"],
            "low": rows.loc[name, "robust_accuracy/low"],
            "high": rows.loc[name, "robust_accuracy/high"],
            "n": 1,
        }
    assert confirmed["front_before"] == store.load_front(folder)["trial_id"].tolist()
    assert set(confirmed["front_after"]) <= set(confirmed["front_before"])
    assert confirmed["reference"] == dict.fromkeys(confirmed["objectives"], 0.0)
    assert confirmed["hypervolume"]["before"] > 0
    assert confirmed["kendall_tau"]["n"] == len(confirmed["members"])
    assert not confirmed["smoke"]


def test_provenance(folder: Path, confirmed: dict) -> None:
    facts = json.loads((folder / "confirm" / "confirm.json").read_text())
    assert facts["status"] == "finished"
    assert (facts["suite"], facts["seeds"], facts["split"]) == ("quick", [0], "test")
    assert facts["report"] == confirmed
    assert facts["versions"]["torch"]
    assert b"snnsweep" in pq.read_schema(folder / "confirm" / "results.parquet").metadata


def test_only_pairs_without_a_row_are_run(folder: Path, confirmed: dict) -> None:
    path = folder / "confirm" / "results.parquet"
    before = path.read_bytes()
    ran: list[str] = []

    def watch(progress: Progress) -> None:
        ran.extend(progress.running)

    def again(seeds: int) -> pd.DataFrame:
        ran.clear()
        run = Confirmation(folder, seeds=seeds, suite="quick", samples=40, listener=watch).run()
        return run.rows().set_index("trial_id")

    whole = again(1)
    assert not ran
    assert path.read_bytes() == before
    lost = pq.read_table(path).column("trial_id")[0].as_py()
    journal = path.with_suffix(".jsonl")
    kept = [line for line in journal.read_text().splitlines(keepends=True) if json.loads(line)["trial_id"] != lost]
    journal.write_text("".join(kept))  # as an interrupted run leaves it
    path.unlink()
    mended = again(1)
    assert set(ran) == {lost}
    measured = [name for name in figures(whole.loc[lost].to_dict()) if name.endswith(("accuracy", "sparsity", "high"))]
    assert len(measured) > 6
    assert mended.loc[lost, measured].to_dict() == whole.loc[lost, measured].to_dict()


def test_two_seeds_have_a_t_interval_and_take_the_first_ones_row(folder: Path, confirmed: dict) -> None:
    run = Confirmation(folder, top=1, seeds=2, suite="quick", samples=40).run()
    (member,) = run.report()["members"]
    assert member["trial_id"] == confirmed["members"][0]["trial_id"]
    assert run.report()["seeds"] == [0, 2]
    rows = run.rows()
    assert len(rows) == len(confirmed["members"]) + 1
    one, other = rows[rows["member"] == member["trial_id"]]["clean_accuracy"]
    figure = member["after"]["clean_accuracy"]
    assert figure["value"] == pytest.approx((one + other) / 2)
    assert figure["high"] == pytest.approx(min(1, (one + other) / 2 + 12.706 * abs(one - other) / 2), abs=1e-3)
    assert run.report()["interval"].startswith("95 %, Student t over seeds; of one ended pair alone")


def test_the_stored_models_on_the_test_split(folder: Path, tmp_path: Path) -> None:
    """Against the measurement of the loaded model by hand, bit for bit; wrong test labels are found out."""
    (tmp_path / "wrong").touch()
    run = Confirmation(folder, seeds=0, suite="quick", samples=39, top=1, data_dir=tmp_path).run()
    row = run.rows().query("stored").iloc[0]

    def by_hand(place: Path | None) -> Measurement:
        trial = load_trial(folder, row["member"], place)
        config = TrialConfig.from_flat({**trial.config.to_flat(), "attack.suite": "quick", "attack.samples": 39})
        splits = Data(trial.data.train, trial.data.test, trial.data.test, trial.data.spec)
        return Measurement(trial.model, config, splits)

    measured = figures(by_hand(tmp_path).run().metrics)
    assert {key: row[key] for key in measured} == measured
    assert row["clean_accuracy"] != by_hand(None).correct().double().mean().item()
    assert run.report()["interval"] == "95 %, over samples (Wilson for accuracies)"


def test_a_suite_that_transfers_borrows_the_other_members_models(folder: Path) -> None:
    names = store.load_front(folder)["trial_id"].tolist()
    stored = Confirmation(folder, seeds=0, suite="borrowing", top=2).run()
    assert stored.report()["samples"] == [40]
    rows = stored.rows().query("`attack.suite` == 'borrowing'").to_dict("records")
    assert {row["member"] for row in rows} == set(names[:2])
    for row in rows:
        others = [name for name in names if name != row["member"]]
        assert list(row["sources"]) == others == stored.report()["sources"][row["trial_id"]]
        assert all(math.isfinite(row[f"robust_accuracy/then_transfer_{name}"]) for name in others)
    fresh = Confirmation(folder, seeds=1, suite="borrowing", top=2)
    fresh._check()
    others = [[name for name in names if name != own] for own in names[:2]]  # of the whole front, whatever --top is
    assert [pair["sources"] for pair in fresh.pairs] == [[own, *rest] for own, rest in zip(names, others, strict=False)]


def test_a_pair_that_fails_has_a_row_with_its_cause_and_leaves_the_front(folder: Path, tmp_path: Path) -> None:
    facts = store.load_sweep(folder)
    text = facts["space"]["text"].replace("return 0.9 * v + x", "raise RuntimeError('boom')")
    (tmp_path / "ray").symlink_to(folder / "ray")
    store.write_json(tmp_path / "sweep.json", facts | {"smoke": True, "space": facts["space"] | {"text": text}})
    (tmp_path / "results.parquet").write_bytes((folder / "results.parquet").read_bytes())
    shown = call(tmp_path, "--seeds", "1", "--suite", "quick", "--top", "1")
    assert shown.exit_code == 3, shown.output
    assert "RuntimeError: boom" in shown.output
    assert "front after    nobody" in shown.output
    assert "taken from it " in shown.output  # --top 1 is not the whole front
    assert "smoke run: the figures mean nothing" in shown.output
    rows = store.load_results(tmp_path / "confirm")
    assert rows["status"].tolist() == ["failed"]
    assert rows["cause"].tolist() == ["RuntimeError: boom"]
    assert rows["neuron.name"].tolist() == ["slow"]
    good = facts["space"]
    store.write_json(tmp_path / "sweep.json", facts | {"status": "running", "space": good})
    again = call(tmp_path, "--seeds", "1", "--suite", "quick", "--top", "1")  # what failed is run again
    assert again.exit_code == 0, again.output
    assert store.load_results(tmp_path / "confirm")["status"].tolist() != ["failed"]
    assert "the sweep has not ended in order (status running)" in again.output


def test_two_at_once_are_refused(folder: Path) -> None:
    (folder / "confirm").mkdir(exist_ok=True)
    with alone_in(folder / "confirm"):
        shown = call(folder, "--seeds", "1", "--suite", "quick", "--samples", "40")
    assert shown.exit_code == 2
    assert "another process is at work there" in shown.output


def test_an_interrupted_confirmation_shows_no_front(folder: Path, confirmed: dict) -> None:
    run = Confirmation(folder, seeds=2, suite="quick", samples=40, top=2)
    run._check()
    report = run.report()
    assert report["pairs"]["ended"] < report["pairs"]["asked"] == 4
    assert report["front_after"] is None
    with out.capture() as shown:
        show_confirmation(report)
    assert "pairs have ended; the same command goes on with the others" in shown.get()
    assert "hypervolume" not in shown.get()


def test_the_table(folder: Path, confirmed: dict) -> None:
    shown = call(folder, "--seeds", "1", "--suite", "quick", "--samples", "40")
    assert shown.exit_code == 0, shown.output
    for words in ("front before", "front after", "hypervolume", "Kendall's tau", "hypervolumes over clean_accuracy 0"):
        assert words in shown.output
    for one in confirmed["members"]:
        assert one["trial_id"] in shown.output


def test_mistakes_are_told_all_at_once(folder: Path, tmp_path: Path) -> None:
    shown = call(folder, "--top", "fornt", "--seeds", "-1", "--suite", "stong", "--samples", "0")
    assert shown.exit_code == 2
    for words in ("did you mean front?", "--seeds -1", "did you mean strong?", "--samples 0"):
        assert words in shown.output
    missing = call(folder.parent / "t", "--suite", "stong")
    assert missing.exit_code == 2
    assert "no sweep in" in missing.output
    assert "did you mean strong?" in missing.output
    assert not (tmp_path / "confirm").exists()


def test_what_cannot_be_confirmed(folder: Path, tmp_path: Path) -> None:
    facts = store.load_sweep(folder)
    table = pq.read_table(folder / "results.parquet")
    status = table.schema.get_field_index("status")
    store.write_json(tmp_path / "sweep.json", facts)
    pq.write_table(table.set_column(status, "status", [["failed"] * len(table)]), tmp_path / "results.parquet")
    with pytest.raises(UserError, match="no trial is on the front of"):
        Confirmation(tmp_path, suite="quick").run()
    pq.write_table(table, tmp_path / "results.parquet")
    with pytest.raises(UserError, match=r"no checkpoint of t000\d"):
        Confirmation(tmp_path, seeds=0, suite="quick").run()
    store.write_json(tmp_path / "sweep.json", facts | {"objectives": {"robust_accuracy/bptr": "maximize"}})
    with pytest.raises(UserError, match=r"bptr is not among its figures; did you mean then_bptr\?"):
        Confirmation(tmp_path, suite="strong").run()
    assert not (tmp_path / "confirm").exists()
