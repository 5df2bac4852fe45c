"""The sweep's files: what goes in comes out, and no reader ever meets half a file."""

import errno
import json
import math
import os
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snnsweep
from snnsweep.config import DEFAULTS, TrialConfig
from snnsweep.errors import SnnSweepError, UserError
from snnsweep.result import Result
from snnsweep.results.journal import Journal
from snnsweep.results.store import Store, load_front, load_results, load_sweep, write_json


def row(trial_id: str, **values: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "status": "finished", "epochs": 3, "warnings": [], "cause": "", **values}


def test_a_result_comes_back_with_its_types(tmp_path: Path) -> None:
    metrics = {"robust_accuracy": 0.25, "clean_accuracy": 0.5, "audit/ok": math.nan}
    config = TrialConfig.from_flat({"data.subset": 100})
    done = Result.model_construct(
        status="finished", config=config, metrics=metrics, warnings=("few", "noisy"), epochs=3
    )
    Store(tmp_path).add(done.row("t0"))
    Store(tmp_path).add(Result.model_construct(status="failed", config=TrialConfig(), cause="it broke").row("t1"))

    results = snnsweep.load_results(tmp_path)
    last = ["hardware", "epochs", "audit", "audit_checks", "warnings", "cause"]
    names = ["trial_id", "status", *DEFAULTS, *sorted(metrics), *last]
    assert results.columns.tolist() == names
    assert results["trial_id"].tolist() == ["t0", "t1"]
    assert results["data.subset"].tolist() == [100, pd.NA]
    assert results["data.subset"].dtype == pd.Int64Dtype()
    assert results["neuron.detach_reset"].dtype == pd.BooleanDtype()
    assert results["neuron.detach_reset"].tolist() == [True, True]
    assert results["neuron.v_threshold"].dtype == float
    assert results["model.residual"].tolist() == ["sew_add", "sew_add"]
    assert [list(texts) for texts in results["warnings"]] == [["few", "noisy"], []]
    assert results["epochs"].tolist() == [3, 0]
    assert results["clean_accuracy"][0] == 0.5
    assert math.isnan(results["clean_accuracy"][1])
    assert results["cause"].tolist() == ["", "it broke"]
    config_again = {key: results[key][0] for key in DEFAULTS if pd.notna(results[key][0])}
    assert TrialConfig.from_flat(config_again) == config


def test_two_variants_share_a_table(tmp_path: Path) -> None:
    rows = Store(tmp_path)
    rows.add(row("t0", **{"gradient_sparsity/zero_share/stem.conv": 0.5, "clean_accuracy": 0.9}))
    rows.add(row("t1", **{"gradient_sparsity/zero_share/features.0": 0.25, "clean_accuracy": 0.8}))
    columns = pq.read_table(tmp_path / "results.parquet").to_pydict()
    assert columns["gradient_sparsity/zero_share/stem.conv"] == [0.5, None]
    assert columns["gradient_sparsity/zero_share/features.0"] == [None, 0.25]
    assert columns["clean_accuracy"] == [0.9, 0.8]


def test_a_trial_is_never_counted_twice(tmp_path: Path) -> None:
    rows = Store(tmp_path)
    rows.add(row("t0", clean_accuracy=0.1))
    rows.add(row("t1", clean_accuracy=0.2))
    Store(tmp_path).add(row("t0", clean_accuracy=0.3))
    results = load_results(tmp_path)
    assert results["trial_id"].tolist() == ["t0", "t1"]
    assert results["clean_accuracy"].tolist() == [0.3, 0.2]


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([None, 3], [None, 3]),
        ([1, 0.5], [1.0, 0.5]),
        ([2**70, 1], [str(2**70), "1"]),
        ([2**60 + 1, None], [2**60 + 1, None]),
        ([True, 1], ["True", "1"]),
        (["adam", 1, None], ["adam", "1", None]),
        ([np.float32(0.5), np.int64(2)], [0.5, 2.0]),
        ([np.bool_(True), None], [True, None]),
        ([None, None], [None, None]),
        (["a\udcff", "b"], ["a?", "b"]),
        ([["a"], None, []], [["a"], None, []]),
        ([math.inf, -math.inf], [math.inf, -math.inf]),
    ],
)
def test_mixed_values_find_a_type(tmp_path: Path, values: list[Any], stored: list[Any]) -> None:
    rows = Store(tmp_path)
    for i, value in enumerate(values):
        rows.add(row(f"t{i}", **{"neuron.tau": value}))
    assert pq.read_table(tmp_path / "results.parquet")["neuron.tau"].to_pylist() == stored
    assert len(load_results(tmp_path)) == len(values)


WORDS = st.text(max_size=4)
CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.lists(WORDS, max_size=2))
ROWS = st.fixed_dictionaries(
    {"trial_id": st.sampled_from(string.ascii_lowercase[:6]), "status": st.sampled_from(["finished", "failed"])},
    optional=dict.fromkeys(("neuron.tau", "data.subset", "clean_accuracy", "time/train_s", "warnings"), CELLS),
)


def forms(value: Any) -> list[Any]:
    """How a cell may come back: itself, as a float beside floats, as text beside anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, str(value), *([float(value), str(float(value))] if abs(value) < 2**1000 else [])]
    return [value, str(value)] if value is not None else [None]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_any_rows_are_kept_one_per_trial(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    for each in rows:
        Store(folder).add(each)
    last = {each["trial_id"]: each for each in rows}
    results = load_results(folder)
    assert results["trial_id"].tolist() == list(last)
    assert results["status"].tolist() == [each["status"] for each in last.values()]
    for stored in pq.read_table(folder / "results.parquet").to_pylist():
        given_row = last[stored["trial_id"]]
        assert given_row.keys() <= stored.keys()
        for name, cell in stored.items():
            allowed = forms(given_row.get(name))
            assert cell in allowed or (cell != cell and allowed[0] != allowed[0]), (name, cell, allowed)


def test_provenance_travels_with_the_rows_and_survives_a_resume(tmp_path: Path) -> None:
    facts = {"objectives": {"clean_accuracy": "maximize"}, "space": "é"}
    Store(tmp_path, facts).add(row("t0"))
    Store(tmp_path).add(row("t1"))
    metadata = pq.read_schema(tmp_path / "results.parquet").metadata
    assert json.loads(metadata[b"snnsweep"]) == facts
    Store(tmp_path, {"new": 1}).add(row("t2"))
    assert json.loads(pq.read_schema(tmp_path / "results.parquet").metadata[b"snnsweep"]) == {"new": 1}


def test_frame_is_what_a_reader_gets(tmp_path: Path) -> None:
    rows = Store(tmp_path)
    rows.add(row("t0", clean_accuracy=0.5))
    rows.add(row("t1", **{"data.subset": 5}))
    pd.testing.assert_frame_equal(rows.frame(), load_results(tmp_path))


def die(*args: object) -> None:
    raise OSError(errno.EIO, "it broke")


def test_an_up_to_date_parquet_file_is_read_instead_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Store(tmp_path, objectives={"clean_accuracy": "maximize"})
    result = Result(status="finished", config=TrialConfig(), metrics={"clean_accuracy": 0.5}, warnings=("few",))
    rows.add(result.row("t0"))
    rows.add(result.row("t1"))
    rows.flush()
    monkeypatch.setattr(Journal, "news", lambda journal: pytest.fail("the journal is read"))
    assert load_results(tmp_path)["trial_id"].tolist() == ["t0", "t1"]


def test_a_row_that_does_not_reach_the_disk_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Store(tmp_path)
    rows.add(row("t0"))
    write_json(tmp_path / "sweep.json", {"seed": 1})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", die)
        with pytest.raises(SnnSweepError, match="it broke; the row of trial t1 is not written, but nothing") as caught:
            rows.add(row("t1"))
        assert caught.value.exit_code == 1
        with pytest.raises(OSError, match="it broke"):
            write_json(tmp_path / "sweep.json", {"seed": 2})
    for frame in (rows.frame(), load_results(tmp_path)):
        assert frame["trial_id"].tolist() == ["t0"]
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"seed": 1}
    rows.add(row("t2"))
    rows.add(row("t1"))
    for frame in (rows.frame(), load_results(tmp_path), Store(tmp_path).frame()):
        assert frame["trial_id"].tolist() == ["t0", "t2", "t1"]
    assert sorted(os.listdir(tmp_path)) == ["results.jsonl", "results.parquet", "sweep.json"]


def test_a_parquet_file_that_cannot_be_written_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = Store(tmp_path, {"a": 1}, objectives={"clean_accuracy": "maximize"})
    rows.add(row("t0", clean_accuracy=0.5))
    before = (tmp_path / "results.parquet").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", die)
        rows.add(row("t1", clean_accuracy=0.75))
        rows.add(row("t2", clean_accuracy=0.25))
        assert caplog.text.count("it broke; it will be written later") == 1  # not tried again with each row
        with pytest.raises(SnnSweepError, match=r"it broke; it is not up to date, but nothing is lost"):
            rows.flush()
    assert (tmp_path / "results.parquet").read_bytes() == before
    assert load_results(tmp_path)["trial_id"].tolist() == ["t0", "t1", "t2"]
    rows.flush()
    assert pq.read_table(tmp_path / "results.parquet")["trial_id"].to_pylist() == ["t0", "t1", "t2"]
    assert pq.read_table(tmp_path / "front.parquet")["trial_id"].to_pylist() == ["t1"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_reader_sees_every_row_before_the_new_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Store(tmp_path)
    rows.add(row("t0"))
    seen: list[tuple[int, int]] = []
    replace = os.replace

    def watch(draft: Path, target: Path) -> None:
        seen.append((len(load_results(tmp_path)), pq.read_table(draft).num_rows))
        assert draft.parent == target.parent  # a rename between file systems would not be atomic
        replace(draft, target)

    monkeypatch.setattr(os, "replace", watch)
    rows.add(row("t1"))
    assert seen == [(2, 2)]  # the row is in the journal


def test_what_has_no_json_form_does_not_reach_the_disk(tmp_path: Path) -> None:
    write_json(tmp_path / "sweep.json", {"text": "é", "none": None})
    for bad in ({"x": math.nan}, {"x": object()}):
        with pytest.raises((TypeError, ValueError)):
            write_json(tmp_path / "sweep.json", bad)
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"text": "é", "none": None}


def test_a_front_without_trials_is_a_front(tmp_path: Path) -> None:
    rows = Store(tmp_path, objectives={"clean_accuracy": "maximize"})
    rows.add(row("t0", clean_accuracy=math.nan))
    rows.flush()
    assert (tmp_path / "front.parquet").exists()
    assert len(load_front(tmp_path)) == 0


def test_a_sweep_in_which_no_trial_has_ended_has_no_rows(tmp_path: Path) -> None:
    write_json(tmp_path / "sweep.json", {})
    results = load_results(str(tmp_path))
    assert len(results) == 0
    assert {"trial_id", "status"} <= set(results)


@pytest.mark.parametrize("load", [load_results, load_front, load_sweep])
def test_no_sweep_there_names_the_nearest(tmp_path: Path, load: Any) -> None:
    for name in ("threshold-1", "pooling-1", "no-sweep"):
        (tmp_path / name).mkdir()
    for name in ("threshold-1", "pooling-1"):
        write_json(tmp_path / name / "sweep.json", {})
        Store(tmp_path / name).add(row("t0"))
    with pytest.raises(UserError) as caught:
        load(tmp_path / "treshold-1")
    text = str(caught.value)
    assert "\n" not in text
    assert str(tmp_path / "treshold-1") in text
    assert "sweep.json" in text
    assert "pooling-1, threshold-1" in text
    assert "no-sweep" not in text
    assert text.endswith("did you mean threshold-1?")
    with pytest.raises(UserError, match=r"pooling-1, threshold-1$"):
        load(tmp_path)  # the folder of the sweeps instead of one of them
    with pytest.raises(UserError, match="none beside it"):
        load(tmp_path / "nowhere" / "at all")


def test_a_damaged_file_is_said_in_one_line(tmp_path: Path) -> None:
    for name in ("results.parquet", "front.parquet", "sweep.json"):
        (tmp_path / name).write_bytes(b"PAR1 { half a file")
    for use in (load_results, load_front, load_sweep, Store):
        with pytest.raises(UserError) as caught:
            use(tmp_path)
        assert "\n" not in str(caught.value)
        assert "cannot be read" in str(caught.value)
    (tmp_path / "sweep.json").write_text("[1]")
    with pytest.raises(UserError, match="JSON object"):
        load_sweep(tmp_path)
