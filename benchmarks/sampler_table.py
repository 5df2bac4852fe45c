"""Every variant of a small discrete space, trained on digits once: the table that benchmarks/sampler.py replays.

A row holds a variant's parameters, how it ended, its figures at the rungs and at the end, and the seconds of CPU that
its training, its looks at the rungs and its end (attacks and measurements) took. TABLE grows as variants end, and
another call goes on from there. A variant costs about 3 seconds of one core:
    OMP_NUM_THREADS=1 python benchmarks/sampler_table.py benchmarks/data/digits.csv --workers 2
"""

import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import optuna
import torch
from early_stopping import ALL, trained

from snnsweep import TrialConfig
from snnsweep.sweep.asha import rungs
from snnsweep.sweep.rungs import Rungs
from snnsweep.sweep.samplers import GridSampler
from snnsweep.sweep.space import Space
from snnsweep.terminal import err, out

SPACE = Space(
    "sampler_table",
    '''"""The quickstart's question on a grid, with the learning rate."""
OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
RUNGS = {"grace": 3, "eta": 3}
FIXED = {"data.name": "digits", "data.subset": 300, "data.batch_size": 32, "device": "cpu",
         "model.name": "resnet", "model.depth": 10, "model.width": 0.125, "train.epochs": 9,
         "threat.eps": 0.05, "attack.samples": 64}

def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.4, 1.0, step=0.2)
    trial.suggest_int("encoder.time_steps", 1, 3)
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand", "spiking", "membrane"])
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    trial.suggest_categorical("train.lr", [3e-3, 1e-2, 3e-2])
    return FIXED
''',
)
LEARNING_RATES = (1e-2, 3e-2, 3e-3)
PARAMETERS = ("neuron.v_threshold", "encoder.time_steps", "model.residual", "model.pooling", "train.lr")
ASKED = Rungs.of(SPACE.module.RUNGS, SPACE.objectives)
EPOCHS = SPACE.module.FIXED["train.epochs"]
RUNGS = rungs(ASKED.grace, ASKED.eta, EPOCHS)
COLUMNS = (
    *PARAMETERS,
    "status",
    *ALL,
    *(f"rung {rung} {name}" for rung in RUNGS for name in ALL),
    *(f"{part}_s" for part in ("train", "look", "end")),
)


def variants() -> list[dict[str, Any]]:
    """The parameters of every variant, in an order that does not change: by learning rate, then by time steps."""
    study, seen = optuna.create_study(sampler=GridSampler(seed=0)), dict[tuple[Any, ...], dict[str, Any]]()
    while True:
        trial = study.ask()
        SPACE.sample(trial, {}, {})
        if key(trial.params) in seen:
            return sorted(seen.values(), key=_place)
        seen[key(trial.params)] = trial.params
        study.tell(trial, 0.0)


def _place(params: dict[str, Any]) -> tuple[int, int]:
    return LEARNING_RATES.index(params["train.lr"]), params["encoder.time_steps"]


def key(params: dict[str, Any]) -> tuple[str, ...]:
    """What names a variant in the table."""
    return tuple(value if isinstance(value := params[name], str) else f"{value:g}" for name in PARAMETERS)


def row(params: dict[str, Any]) -> dict[str, Any]:
    """Trains one variant to its end."""
    torch.set_num_threads(1)
    trial = trained(TrialConfig.from_flat({**SPACE.module.FIXED, **params}), RUNGS)
    found = dict(zip(PARAMETERS, key(params), strict=True)) | {"status": trial["status"]}
    found |= {name: trial["final"][name] for name in ALL}
    for rung in RUNGS:
        look = trial["looks"].get(str(rung), {})
        found |= {f"rung {rung} {name}": look.get(name) for name in ALL}
    return found | {f"{part}_s": round(seconds, 4) for part, seconds in trial["seconds"].items()}


def rows(table: Path) -> Iterator[dict[str, str]]:
    if table.exists():
        with table.open(newline="") as file:
            yield from csv.DictReader(file)


@click.command()
@click.argument("table", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1))
def main(table: Path, workers: int) -> None:
    """Trains what TABLE lacks."""
    known = {tuple(one[name] for name in PARAMETERS) for one in rows(table)}
    wanted = [params for params in variants() if key(params) not in known]
    table.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool, table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not known:
            writer.writeheader()
        for count, done in enumerate(pool.map(row, wanted), start=len(known) + 1):
            writer.writerow(done)
            file.flush()
            err.print(f"{count} of {len(known) + len(wanted)}: {done['status']}")
    out.print(f"{table}: {len(known) + len(wanted)} variants")


if __name__ == "__main__":
    main()
