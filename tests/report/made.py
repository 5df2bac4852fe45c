"""Sweeps' folders with rows that are made up, in any number and with every kind of end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snnsweep import TrialConfig
from snnsweep.result import PASS, Direction, Result
from snnsweep.results import store
from snnsweep.results.folder import RESULTS, journal_of
from snnsweep.results.journal import Journal
from snnsweep.sweep.provenance import provenance
from snnsweep.sweep.space import Space

OBJECTIVES: dict[str, Direction] = {
    "clean_accuracy": "maximize",
    "robust_accuracy": "maximize",
    "gradient_sparsity": "maximize",
}
HOSTILE = (
    '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1"> &amp; '
    r"$\frac{1}{2}$ %{x} {{ 1 }}"
)
SPACE = f'''"""{HOSTILE.replace(chr(92), chr(92) * 2)}"""


def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.4, 1.2)
    return {{}}
'''
SMALL = {
    "data.name": "digits",
    "model.depth": 10,
    "model.width": 0.125,
    "encoder.time_steps": 2,
    "threat.eps": 0.1,
    "train.epochs": 2,
    "train.lr": 0.01,
}


def write_sweep(folder: Path, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """A sweep's folder with these rows, as `Sweep` leaves it."""
    folder.mkdir(parents=True)
    (folder / "space.py").write_text(SPACE)
    settings = {
        "name": folder.name,
        "status": "finished",
        "trials": len(rows),
        "seed": 0,
        "sampler": "tpe",
        "smoke": False,
    }
    settings |= {"tracking_uri": "sqlite:///mlflow.db", "gpus_per_trial": 0.0, "rungs": None}
    said = provenance(Space.read(folder / "space.py"), **settings) | {"objectives": OBJECTIVES}
    said |= {"mlflow_experiment_id": "1", "ended": "2026-01-01T00:00:00+00:00"} | facts
    store.write_json(folder / store.SWEEP, said)
    Journal(journal_of(folder / RESULTS)).append(*rows)
    store.Store(folder, said, objectives=said["objectives"]).flush()
    return folder


def made_up(count: int, objectives: Mapping[str, Direction] = OBJECTIVES, seed: int = 0) -> list[dict[str, Any]]:
    """Rows without networks: a tenth infeasible, failed and stopped each."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        status = rng.choice(["finished", "infeasible", "failed", "stopped"], p=[0.7, 0.1, 0.1, 0.1])
        config = TrialConfig.from_flat(
            SMALL
            | {
                "neuron.v_threshold": float(rng.uniform(0.4, 1.2)),
                "neuron.tau": float(rng.uniform(1.1, 4)),
                "encoder.time_steps": int(rng.integers(2, 9)),
                "model.residual": str(rng.choice(["sew_add", "sew_and", "sew_iand", "spiking", "membrane"])),
                "model.pooling": str(rng.choice(["max", "avg"])),
                "train.lr": float(10 ** rng.uniform(-4, -1)),
            }
        )
        verdict = {"infeasible": "fail"}.get(status, str(rng.choice([PASS, "suspect"])))
        metrics: dict[str, float] = {}
        if status in ("finished", "infeasible"):
            for name in objectives:
                middle = float(rng.uniform(0.1, 0.9))
                metrics |= {
                    name: middle,
                    f"{name}/low": middle - 0.05,
                    f"{name}/high": middle + 0.06,
                    f"{name}/n": 64.0,
                }
            metrics |= {"time/train_s": float(rng.uniform(1, 9)), "time/attack_s": float(rng.uniform(1, 9))}
            for layer in range(60):
                metrics[f"gradient_sparsity/zero_share/stage1.block{layer}.conv1"] = float(rng.random())
        result = Result(
            status=status,
            config=config,
            metrics=metrics,
            epochs=2,
            cause="" if status == "finished" else f"Cause {rng.integers(4)}: {HOSTILE}\nsecond line",
            warnings=("audit suspect, rule_spread: something",) if verdict == "suspect" else (),
            verdict=verdict if metrics else "",
        )
        rows.append(result.row(f"t{number:04d}"))
    return rows
