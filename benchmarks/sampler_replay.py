"""Sweeps replayed from a table of trained variants: what a front costs by random search, TPE, and both with rungs.

The table is sampler_table.py's. A replay costs milliseconds a trial:
    OMP_NUM_THREADS=1 python benchmarks/sampler_replay.py benchmarks/data/digits.csv --seeds 10
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from rich.table import Table
from sampler_table import ALL, ASKED, EPOCHS, PARAMETERS, RUNGS, rows

from snnsweep.result import DEFAULT_OBJECTIVES, direction
from snnsweep.results.front import non_dominated
from snnsweep.results.ranking import hypervolume
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.search import Teller
from snnsweep.sweep.tpe import BoundedTPE
from snnsweep.terminal import out

OBJECTIVES = {name: direction(name) for name in DEFAULT_OBJECTIVES}
WAYS, REFERENCE = tuple(OBJECTIVES.values()), np.zeros(len(OBJECTIVES))  # 0 is a share's worst
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "stock TPE": lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
    "ours": lambda seed: BoundedTPE(seed, 10),
}
STRATEGIES = {name + rungs: (name, bool(rungs)) for rungs in ("", " + rungs") for name in SAMPLERS}
LIMIT = 3  # times the random search's cost, after which a strategy is given up
Row = Mapping[str, str]
Curve = NDArray[np.float64]  # [trials, 2]: seconds spent by its end, and the hypervolume then


class Replayed:
    """The table as a space: its parameters with the values that it holds, in every combination."""

    def __init__(self, table: Path):
        found = list(rows(table))
        self.values = {name: list(dict.fromkeys(row[name] for row in found)) for name in PARAMETERS}
        self.rows = {tuple(row[name] for name in PARAMETERS): row for row in found}
        if len(self.rows) != np.prod([len(values) for values in self.values.values()]):
            raise click.UsageError(f"{table} does not hold every combination; go on with sampler_table.py")

    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, Row]:
        trial = study.ask()
        return trial, self.rows[tuple(self._suggest(trial, name) for name in PARAMETERS)]

    def _suggest(self, trial: optuna.Trial, name: str) -> str:
        """Numbers are floats with a step where their values are evenly spaced, as they were when they were trained."""
        values = self.values[name]
        try:
            numbers = sorted(map(float, values))
        except ValueError:
            return trial.suggest_categorical(name, values)
        gaps = np.diff(numbers)
        if len(numbers) < 2 or not np.allclose(gaps, gaps[0]):
            return trial.suggest_categorical(name, values)
        given = trial.suggest_float(name, numbers[0], numbers[-1], step=round(float(gaps[0]), 9))
        return min(values, key=lambda value: abs(float(value) - given))


def figures(row: Row, prefix: str = "") -> dict[str, float | None]:
    return {name: float(row[prefix + name]) if row[prefix + name] else None for name in ALL}


def sweep(space: Replayed, sampler: BaseSampler, asha: Asha | None, until: Callable[[float, int], bool]) -> Curve:
    """Trials one after the other, each told as the sweep would tell it."""
    study = optuna.create_study(directions=list(WAYS), sampler=sampler)
    study.set_metric_names(list(OBJECTIVES))
    teller, front, spent, curve = Teller(study), np.empty((0, len(WAYS))), 0.0, []
    while until(spent, len(curve)):
        trial, row = space.ask(study)
        stopped, seconds = at_rungs(row, asha, str(trial.number))
        spent += seconds
        if stopped:
            look = figures(row, f"rung {stopped} ")
            teller.tell(trial.number, "stopped", look, violation=1 - stopped / EPOCHS)
        else:
            final = figures(row)
            teller.tell(trial.number, row["status"], final)
            if row["status"] == "finished":
                points = np.vstack([front, [[final[name] for name in OBJECTIVES]]])
                front = points[non_dominated(points, WAYS)]
        curve.append((spent, hypervolume(front, REFERENCE, WAYS)))
    return np.array(curve)


def at_rungs(row: Row, asha: Asha | None, trial: str) -> tuple[int, float]:
    """The epoch where a trial is stopped (0: it is not), and the seconds that it costs."""
    train, look, end = (float(row[f"{part}_s"]) for part in ("train", "look", "end"))
    if asha is None:
        return 0, train + end
    for place, rung in enumerate(RUNGS, start=1):
        if row["status"] == "failed" and not row[f"rung {rung} {ALL[0]}"]:
            return 0, train + end  # diverged before it got there
        if not asha.goes_on(trial, rung, figures(row, f"rung {rung} ")):
            return rung, train * rung / EPOCHS + look * place / len(RUNGS)
    return 0, train + look + end


def rungs(use: bool) -> Asha | None:
    asked = {"grace": ASKED.grace, "eta": ASKED.eta, "order": ASKED.order}
    return Asha(ASKED.metrics, EPOCHS, **asked) if use else None  # type: ignore[arg-type]


def reached(curve: Curve, volume: float) -> float:
    """Seconds until a hypervolume was there; infinite where it never was."""
    there = np.flatnonzero(curve[:, 1] >= volume * (1 - 1e-9))
    return float(curve[there[0], 0]) if len(there) else np.inf


def spread(values: Sequence[float]) -> str:
    """Median and range; what was never reached counts as infinite."""
    low, middle, high = np.quantile(values, [0, 0.5, 1], method="nearest")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


@click.command()
@click.argument("table", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(2))
@click.option("--trials", default=(30, 60), show_default=True, multiple=True, help="Of the random searches to be met.")
def replay(table: Path, seeds: int, trials: tuple[int, ...]) -> None:
    """What the front that a random search found costs by other ways."""
    space = Replayed(table)
    everything = np.array([[figures(row)[name] for name in OBJECTIVES] for row in able(space)])
    best = hypervolume(everything[non_dominated(everything, WAYS)], REFERENCE, WAYS)
    statuses = [row["status"] for row in space.rows.values()]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    out.print(f"{len(statuses)} variants: {counts}; hypervolume of all {best:.4f}")
    for count in trials:
        out.print(met(space, count, seeds, best))
    out.print("median (range) over the seeds; inf: not reached at all")


def able(space: Replayed) -> list[Row]:
    return [row for row in space.rows.values() if row["status"] == "finished"]


def met(space: Replayed, trials: int, seeds: int, best: float) -> Table:
    """Each seed's random search of so many trials, and what the others need for its hypervolume."""
    searches = [SAMPLERS["random"](1_000 + seed) for seed in range(seeds)]
    goals = [sweep(space, search, None, lambda _, done: done < trials) for search in searches]
    shares = [float(goal[-1, 1]) / best for goal in goals]
    seconds = np.mean([goal[-1, 0] for goal in goals])
    title = f"random search, {trials} trials: {seconds:.0f} s, {spread(shares)} of the hypervolume of all"
    table = Table("strategy", "cost / random's", "never", "hypervolume / random's at equal cost", title=title)
    for name, (sampler, with_rungs) in STRATEGIES.items():
        needs, volumes = [], []
        for seed, goal in enumerate(goals):
            cost, volume = map(float, goal[-1])
            curve = sweep(space, SAMPLERS[sampler](seed), rungs(with_rungs), lambda spent, _: spent < LIMIT * cost)  # noqa: B023
            needs.append(reached(curve, volume) / cost)
            volumes.append(float(curve[max(0, np.searchsorted(curve[:, 0], cost, side="right") - 1), 1]) / volume)
        table.add_row(name, spread(needs), f"{sum(np.isinf(needs))} of {seeds}", spread(volumes))
    return table


if __name__ == "__main__":
    replay()
