"""A sweep of real trials, with every kind of end, and rows that are made up in any number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made import HOSTILE, OBJECTIVES, SMALL, made_up, write_sweep

from snnsweep import TrialConfig
from snnsweep.evaluation import Evaluation
from snnsweep.results import store
from snnsweep.results.comparison import compare
from snnsweep.results.front import front
from snnsweep.tracking.journal import Journal


@pytest.fixture(scope="session")
def real_rows() -> tuple[list[dict[str, Any]], dict[str, list[dict[str, float]]]]:
    """Two trials that were trained and attacked, one that failed, and the epochs of each."""
    rows, epochs = [], {}
    for number, threshold in enumerate((0.5, 1.1)):
        trial = Evaluation(
            TrialConfig.from_flat(SMALL | {"neuron.v_threshold": threshold, "attack.samples": 32, "data.subset": 500})
        )
        while not trial.trained:
            trial.epoch()
        name = f"t{number:04d}"
        rows.append(trial.result().row(name))
        epochs[name] = trial.history
    lost = Evaluation(TrialConfig.from_flat(SMALL | {"neuron.v_threshold": 1.2}))
    rows.append(lost.failed(f"Boom: {HOSTILE}\nat line 3").row("t0002"))
    return rows, epochs


@pytest.fixture(scope="session")
def swept(real_rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a confirmed sweep of these, beside ten finished and five other rows that are made up."""
    rows, epochs = real_rows
    others = [row | {"trial_id": f"t{number:04d}"} for number, row in enumerate(made_up(24, seed=3), start=3)]
    for row in others:
        if row["status"] == "finished":  # the sparsest of the real ones is on the front
            for name in ("gradient_sparsity", "gradient_sparsity/low", "gradient_sparsity/high"):
                row[name] /= 4
            row["gradient_sparsity/zero_share/<u>layer</u>"] = 0.5
            row["gradient_sparsity/zero_share/@orange"] = 0.5
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "digits", [*rows, *others])
    journal = Journal(folder, "run")
    for trial, history in epochs.items():
        for step, metrics in enumerate(history, start=1):
            journal.append({"call": "log_epoch", "said": {"trial_id": trial, "step": step, "metrics": metrics}})
    store.write_json(folder / "confirm" / "confirm.json", {"report": _confirmed(folder)})
    return folder


def _confirmed(folder: Path) -> dict[str, Any]:
    """What a confirmation reports where each member's pair is another trial's row."""
    (folder / "confirm").mkdir()
    results = store.load_results(folder)
    members = front(results, OBJECTIVES).to_dict("records")
    pairs = {row["trial_id"]: [f"{row['trial_id']}-seed1"] for row in members}
    ended = [
        row | {"trial_id": f"{row['trial_id']}-seed1", "robust_accuracy": 0.9 * row["robust_accuracy"]}
        for row in members
    ]
    said = compare(members, ended, pairs, OBJECTIVES, dict.fromkeys(OBJECTIVES, 0.0))
    about = {
        "sweep": "digits",
        "top": "front",
        "warning": "",
        "smoke": False,
        "objectives": OBJECTIVES,
        "split": "test",
    }
    return (
        about
        | {"suite": "quick", "samples": [64], "seeds": [1], "interval": "95 %, over samples", "sources": {}}
        | said
    )


@pytest.fixture
def sweep_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of a sweep: a name, rows, and what differs in `sweep.json`."""
    return lambda name, rows, **facts: write_sweep(tmp_path / name, rows, **facts)
