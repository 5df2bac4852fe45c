"""What the default sampler costs, and what it is worth, against Optuna's own TPE, random search and NSGA-II.

docs/sampler.md says what follows. CPU time is the process's; compare the ratios, which are of the same run.
    OMP_NUM_THREADS=1 python benchmarks/sampler.py cost
    OMP_NUM_THREADS=1 python benchmarks/sampler.py volume runs.jsonl --seeds 6
    OMP_NUM_THREADS=1 python benchmarks/sampler_replay.py benchmarks/data/digits.csv --seeds 10
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial
from rich.table import Table
from sampler_problems import PROBLEMS

from snnsweep.results.front import non_dominated
from snnsweep.results.ranking import hypervolume
from snnsweep.sweep.study import CONSTRAINT, STUDY_FILE
from snnsweep.sweep.study_file import Journal, StudyFile
from snnsweep.sweep.tpe import BoundedTPE
from snnsweep.terminal import err, out

WAYS = ("minimize",) * 3
STARTUP = 10  # as in a sweep of 30 trials or more
OURS, STOCK = "ours", "stock TPE"
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    OURS: lambda seed: BoundedTPE(seed, STARTUP),
    STOCK: lambda seed: TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True),
    "NSGA-II": lambda seed: NSGAIISampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
EVERY = 250  # trials, after which the hypervolume is taken
Run = dict[str, Any]


def one(study: optuna.Study, problem: str) -> tuple[float, float]:
    """Asks for a trial and tells how it ended: CPU ms of each."""
    begun = time.process_time()
    trial = study.ask()
    values, violated = PROBLEMS[problem][0](trial)
    asked = time.process_time()
    trial.set_constraint(CONSTRAINT, violated)
    study.tell(trial, values)
    return 1e3 * (asked - begun), 1e3 * (time.process_time() - asked)


def drawn(problem: str, count: int) -> list[FrozenTrial]:
    """Told trials at random: their front is small, which favours the stock sampler."""
    study = optuna.create_study(directions=WAYS, sampler=RandomSampler(seed=0))
    for _ in range(count):
        one(study, problem)
    return study.get_trials(deepcopy=False)


def filled(storage: BaseStorage, told: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(storage=storage, directions=WAYS)
    with patch("os.fsync"):  # of what is written beforehand
        study.add_trials(told)
    return study


def costs(problem: str, told: list[FrozenTrial], storage: BaseStorage, asks: int) -> dict[str, list[list[float]]]:
    """By sampler: CPU ms of the first ask, of the others, and of telling; the samplers take turns in one study."""
    study = filled(storage, told)
    samplers = {name: make(0) for name, make in SAMPLERS.items()}
    found: dict[str, list[list[float]]] = {name: [[], [], []] for name in samplers}
    for turn in range(asks + 1):
        for name, study.sampler in samplers.items():
            asked, took = one(study, problem)
            found[name][min(turn, 1)].append(asked)
            found[name][2].append(took)
    return found


def quartiles(values: list[float], digits: int = 1) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


@click.group()
def main() -> None:
    """What the default sampler costs, and what it is worth."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@main.command()
@click.option("--trials", "sizes", multiple=True, default=(100, 1_000, 10_000), show_default=True)
@click.option("--problem", default="spiking", show_default=True, type=click.Choice(list(PROBLEMS)))
@click.option("--asks", default=10, show_default=True, type=click.IntRange(2))
def cost(sizes: tuple[int, ...], problem: str, asks: int) -> None:
    """CPU ms of an ask and of telling, where so many trials were told before."""
    table = Table("told", "storage", "sampler", "ask", "stock / this, turn by turn", "first ask", "tell", title=problem)
    for size in sizes:
        told = drawn(problem, size)
        with tempfile.TemporaryDirectory() as home:
            journal = StudyFile(Journal(Path(home) / STUDY_FILE))
            for kind, storage in (("memory", InMemoryStorage()), ("journal", journal)):
                found = costs(problem, told, storage, asks)
                for name, (first, others, tells) in found.items():
                    ratio = quartiles([mine / own for mine, own in zip(found[STOCK][1], others, strict=True)])
                    cells = (quartiles(others), ratio, f"{first[0]:.1f}", quartiles(tells))
                    table.add_row(f"{size:,}", kind, name, *cells)
                err.print(f"{size} told, {kind}: done")
    out.print(table)
    out.print(f"CPU ms: median (quartiles) of {asks} asks a sampler, which take turns in one study")


def run(problem: str, name: str, seed: int, trials: int) -> Run:
    """One study from its first trial on, and its hypervolume on the way."""
    reference = np.array(PROBLEMS[problem][1])
    study = optuna.create_study(directions=WAYS, sampler=SAMPLERS[name](seed))
    begun, volumes = time.process_time(), {}
    for count in range(1, trials + 1):
        one(study, problem)
        if count % EVERY == 0:
            able = [told.values for told in study.get_trials(deepcopy=False) if told.constraints[CONSTRAINT] <= 0]
            points = np.array(able)
            volumes[str(count)] = hypervolume(points[non_dominated(points, WAYS)], reference, WAYS)
    cpu = round(time.process_time() - begun, 1)
    return {"problem": problem, "sampler": name, "seed": seed, "volumes": volumes, "cpu_s": cpu}


def runs(file: Path, seeds: int, trials: int) -> Iterator[Run]:
    """Those of the file, and those that it lacks, which are run and added."""
    lines = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    known = {(line["problem"], line["sampler"], line["seed"]): line for line in lines}
    for seed in range(seeds):
        for problem in PROBLEMS:
            for name in SAMPLERS:
                found = known.get((problem, name, seed))
                if found is None or str(trials) not in found["volumes"]:
                    found = run(problem, name, seed, trials)
                    with file.open("a") as added:
                        added.write(json.dumps(found) + "\n")
                    err.print(f"{problem}, {name}, seed {seed}: {found['cpu_s']} s")
                yield found


def interval(values: np.ndarray, digits: int = 3) -> str:
    """Mean, standard deviation, least and most."""
    spread = f"{values.mean():.{digits}f} +- {values.std(ddof=1):.{digits}f}"
    return f"{spread} ({values.min():.{digits}f} to {values.max():.{digits}f})"


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--trials", default=1_000, show_default=True, type=click.IntRange(EVERY))
def volume(file: Path, seeds: int, trials: int) -> None:
    """Hypervolume at equal trials; FILE grows as studies end, and another call goes on from there."""
    found = {(one["problem"], one["sampler"], one["seed"]): one for one in runs(file, seeds, trials)}
    marks = [str(count) for count in range(EVERY, trials + 1, EVERY)]
    table = Table("problem", "sampler", *(f"after {mark}" for mark in marks), title=f"stock TPE is 1; {seeds} seeds")
    for problem in PROBLEMS:
        for name in SAMPLERS:
            row = []
            for mark in marks:
                pairs = [[found[problem, who, seed]["volumes"][mark] for who in (name, STOCK)] for seed in range(seeds)]
                row.append(interval(np.divide(*np.array(pairs).T)))
            table.add_row(problem, name, *row)
    out.print(table)
    out.print("mean +- standard deviation of the ratios, paired by seed (least to most)")


if __name__ == "__main__":
    main()
