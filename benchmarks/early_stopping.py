"""Does stopping trials early cost the front? Multi-objective successive halving against full training (digits).

Every variant of every seed is trained to the end once, with the light look that a space's `RUNGS` asks for at each
rung; who would have been stopped is replayed on these curves. A look changes no later figure, so that only the arrival
is simulated: trials run side by side, an epoch of each in turn. CURVES grows as trials end, and another call goes on
from there. A trial costs about 13 seconds of one core:
    OMP_NUM_THREADS=1 python benchmarks/early_stopping.py curves.jsonl --picture docs/early-stopping.png
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from snnsweep import TrialConfig
from snnsweep.errors import Diverged, UserError
from snnsweep.evaluation import Evaluation
from snnsweep.results.ranking import hypervolume, kendall_tau, reference_point
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.rungs import Rungs
from snnsweep.sweep.space import Space
from snnsweep.terminal import err, out

SPACE = Space(
    "early_stopping",
    '''"""The quickstart's question, smaller, and with the learning rate."""
OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
RUNGS = {"grace": 2, "eta": 3}
FIXED = {"data.name": "digits", "data.subset": 300, "data.batch_size": 32, "device": "cpu",
         "model.name": "resnet", "model.depth": 10, "model.width": 0.125, "train.epochs": 18,
         "threat.eps": 0.05, "attack.samples": 100}

def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.4, 1.2)
    trial.suggest_int("encoder.time_steps", 2, 5)
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand", "spiking", "membrane"])
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    trial.suggest_float("train.lr", 3e-3, 3e-2, log=True)
    return FIXED
''',
)
ASKED = Rungs.of(SPACE.module.RUNGS, SPACE.objectives)
ALL, DIRECTIONS = tuple(SPACE.objectives), tuple(SPACE.objectives.values())
REFERENCE = np.array([*reference_point(SPACE.objectives, []).values()])  # 0 in each: the worst possible share
EPOCHS = SPACE.module.FIXED["train.epochs"]
SLOTS, ORDERS = 4, 50  # trials side by side; orders of arrival, and draws of the stopping by lot
BUDGETS = (0.25, 0.5, 0.75, 1.0)  # of the epochs that FIRST needs for all variants
FULL, SIDE, FIRST, LOT = "full training", f"full, {SLOTS} side by side", "epsilon_net", "by lot"
RULES = {  # what is compared at the rungs, and the order of the front that is cut
    FIRST: (ALL, "epsilon_net"),
    "crowding": (ALL, "crowding"),
    "without sparsity": (ALL[:2], "epsilon_net"),
    "clean accuracy alone": (ALL[:1], "epsilon_net"),
}
Trial = dict[str, Any]
Figures = dict[str, NDArray[np.float64]]


def drawn(seed: int, trials: int) -> list[TrialConfig]:
    """The first variants of a random sweep with that seed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [SPACE.sample(study.ask(), {"seed": seed}, {}) for _ in range(trials)]


def rule(metrics: Sequence[str], order: str) -> Asha:
    return Asha(
        {name: SPACE.objectives.get(name, "maximize") for name in metrics},
        EPOCHS,
        grace=ASKED.grace,
        eta=ASKED.eta,
        order=order,
    )


def trained(config: TrialConfig, rungs: Sequence[int]) -> Trial:
    """One trial to its end: its figures at the rungs and at the end, and the seconds of CPU that each took."""
    looks, trial = {}, Evaluation(config)
    clock, begun, looking = time.process_time, time.process_time(), 0.0
    ended = None
    try:
        while not trial.trained:
            metrics = trial.epoch()
            if (epoch := trial.trainer.epochs_done) in rungs:
                looked = clock()
                found = trial.light(ASKED.suite, ASKED.samples, ALL) | {"clean_accuracy": metrics["clean_accuracy"]}
                looks[str(epoch)] = {name: found.get(name) for name in ALL}
                looking += clock() - looked
        ended = clock()
        result = trial.result()
    except Diverged as error:
        result = trial.failed(f"Diverged: {error}")
    now = clock()
    seconds = {"look": looking, "train": (ended or now) - begun - looking, "end": now - (ended or now)}
    final = {name: result.metrics.get(name) for name in ALL}
    about = {"status": result.status, "cause": result.cause, "epochs": max(1, result.epochs)}
    return about | {"looks": looks, "final": final, "seconds": seconds}


def collect(curves: Path, seeds: int, trials: int) -> list[list[Trial]]:
    """By seed, in the order drawn; trains those that the file lacks, one of each seed in turn.

    Raises:
        UserError: the file holds another variant under the same number.
    """
    lines = curves.read_text().splitlines() if curves.exists() else []
    known = {(one["seed"], one["number"]): one for one in map(json.loads, lines)}
    variants = [drawn(seed, trials) for seed in range(seeds)]
    for number in range(trials):
        for seed in range(seeds):
            flat = variants[seed][number].to_flat()
            if (seed, number) not in known:
                ended = trained(variants[seed][number], rule(ALL, FIRST).rungs)
                known[seed, number] = {"seed": seed, "number": number, "config": flat} | ended
                with curves.open("a") as file:
                    file.write(json.dumps(known[seed, number]) + "\n")
                err.print(f"seed {seed} trial {number}: {known[seed, number]['status']}")
            elif known[seed, number]["config"] != flat:
                raise UserError(f"{curves}: seed {seed}, trial {number} is another variant there; name another file")
    return [[known[seed, number] for number in range(trials)] for seed in range(seeds)]


def replay(trials: Sequence[Trial], slots: int, goes_on: Callable[[int, int], bool] | None = None) -> Figures:
    """`slots` trials side by side, an epoch of each in turn; `goes_on` is asked by number and epoch, if given."""
    spent, waiting = [0] * len(trials), iter(range(len(trials)))
    ended, running = (
        list[tuple[Trial, int]](),
        list[int](),
    )  # the epochs that all had spent when a trial came to its end
    while True:
        running += islice(waiting, slots - len(running))
        if not running:
            return figures(ended, EPOCHS * len(trials)) | costs(trials, spent, looked=goes_on is not None)
        for number in tuple(running):
            spent[number] += 1
            done = spent[number] >= trials[number]["epochs"]
            if done:
                ended.append((trials[number], sum(spent)))
            if done or (goes_on and not goes_on(number, spent[number])):
                running.remove(number)


def figures(ended: Iterable[tuple[Trial, int]], longest: int) -> Figures:
    """Of finished trials: `volume` [epochs + 1], the hypervolume after so many; `best` in each objective; how many."""
    finished = [(trial, at) for trial, at in ended if trial["status"] == "finished"]
    points = np.array([[trial["final"][name] for name in ALL] for trial, _ in finished]).reshape(-1, len(ALL))
    volume = np.zeros(longest + 1)
    for count, (_, at) in enumerate(finished, start=1):
        volume[at:] = hypervolume(points[:count], REFERENCE, DIRECTIONS)
    return {"volume": volume, "best": points.max(axis=0, initial=0.0), "finished": np.array(len(finished))}


def costs(trials: Sequence[Trial], spent: Sequence[int], looked: bool) -> Figures:
    """Epochs, and seconds of CPU: of each trial until it was stopped, or with its end."""
    total = 0.0
    for trial, epochs in zip(trials, spent, strict=True):
        seconds, looks = trial["seconds"], trial["looks"]
        total += seconds["train"] * epochs / trial["epochs"]
        if looked and looks:
            total += seconds["look"] * sum(int(rung) <= epochs for rung in looks) / len(looks)
        if epochs >= trial["epochs"]:
            total += seconds["end"]
    return {"epochs": np.array(sum(spent)), "seconds": np.array(total)}


def stopped(trials: Sequence[Trial], asha: Asha, looks: Sequence[Mapping[str, Mapping[str, float | None]]]) -> Figures:
    """Trials stopped by `asha`, which is shown `looks`, by trial and rung."""

    def goes_on(number: int, epoch: int) -> bool:
        return asha.goes_on(str(number), epoch, looks[number].get(str(epoch), {}))

    return replay(trials, SLOTS, goes_on)


def by_lot(trials: Sequence[Trial], draw: random.Random) -> Figures:
    looks = [{rung: {"lot": draw.random()} for rung in trial["looks"]} for trial in trials]
    return stopped(trials, rule(["lot"], FIRST), looks)


def by_rules(trials: Sequence[Trial]) -> dict[str, Figures]:
    looks = [trial["looks"] for trial in trials]
    return {name: stopped(trials, rule(metrics, order), looks) for name, (metrics, order) in RULES.items()}


def mean(found: Sequence[Figures]) -> Figures:
    return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def as_drawn(trials: Sequence[Trial], seed: int) -> dict[str, Figures]:
    """By strategy, with the trials in the order drawn."""
    found = {name: replay(trials, slots) for name, slots in ((FULL, 1), (SIDE, SLOTS))}
    draw = random.Random(seed)
    return found | by_rules(trials) | {LOT: mean([by_lot(trials, draw) for _ in range(ORDERS)])}


def in_any_order(trials: Sequence[Trial], seed: int) -> dict[str, Figures]:
    """By strategy that stops trials, the mean over many orders of the trials."""
    draw, found = random.Random(seed), []
    for _ in range(ORDERS):
        shuffled = draw.sample(trials, len(trials))
        found.append(by_rules(shuffled) | {LOT: by_lot(shuffled, draw)})
    return {name: mean([one[name] for one in found]) for name in found[0]}


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean +- standard deviation over the seeds that have a finite value, and their number where not all have."""
    given = np.array(list(values), dtype=float)
    kept = given[np.isfinite(given)]
    if not len(kept):
        return "-"
    deviation = f" +- {kept.std(ddof=1):.{digits}f}" if len(kept) > 1 else ""
    return f"{kept.mean():.{digits}f}{deviation}" + (f" ({len(kept)})" if len(kept) < len(given) else "")


def volume_table(runs: Sequence[Mapping[str, Figures]]) -> Table:
    """Relative to full training at the same epochs; then what it takes, and what is lost, to have seen all variants."""
    heads = (f"{budget:.0%}" for budget in BUDGETS)
    table = Table("strategy", *heads, "epochs", "full needs", "lost", "finished", "CPU s / full", title="hypervolume")
    for name in runs[0]:
        row = []
        for budget in BUDGETS:
            at = [round(budget * float(run[FIRST]["epochs"])) for run in runs]
            pairs = [(run[name]["volume"][k], run[FULL]["volume"][k]) for run, k in zip(runs, at, strict=True)]
            row.append(spread(mine / full if full else np.nan for mine, full in pairs))
        row.append(spread((float(run[name]["epochs"]) for run in runs), 0))
        needs = [np.searchsorted(run[FULL]["volume"], run[name]["volume"][-1] * (1 - 1e-9)) for run in runs]
        row.append(spread(map(float, needs), 0))
        row.append(spread(1 - run[name]["volume"][-1] / run[FULL]["volume"][-1] for run in runs))
        row.append(spread((float(run[name]["finished"]) for run in runs), 1))
        row.append(spread(float(run[name]["seconds"] / run[FULL]["seconds"]) for run in runs))
        table.add_row(name, *row)
    return table


def order_table(runs: Sequence[Mapping[str, Figures]], others: Sequence[Mapping[str, Figures]]) -> Table:
    """What is lost against full training of all variants: hypervolume, and of the best in each objective."""
    table = Table("strategy", "epochs", "lost", *ALL, title=f"mean over {ORDERS} orders of arrival")
    for name in others[0]:
        pairs = [(other[name], run[FULL]) for other, run in zip(others, runs, strict=True)]
        below = np.array([full["best"] - mine["best"] for mine, full in pairs])
        row = [spread((float(mine["epochs"]) for mine, _ in pairs), 0)]
        row.append(spread(1 - mine["volume"][-1] / full["volume"][-1] for mine, full in pairs))
        table.add_row(name, *row, *(spread(column, 3) for column in below.T))
    return table


def tau_table(seeds: Sequence[Sequence[Trial]]) -> Table:
    """Over the trials that have both figures, finished or not."""
    table = Table("rung", *ALL, title="Kendall's tau of the figures at a rung with the final ones")
    for rung in map(str, rule(ALL, FIRST).rungs):
        taus = ([tau(trials, rung, name) for trials in seeds] for name in ALL)
        table.add_row(f"epoch {rung}", *map(spread, taus))
    return table


def tau(trials: Sequence[Trial], rung: str, name: str) -> float:
    pairs = [(trial["looks"].get(rung, {}).get(name), trial["final"][name]) for trial in trials]
    both = [(before, after) for before, after in pairs if before is not None and after is not None]
    found = kendall_tau([before for before, _ in both], [after for _, after in both])
    return np.nan if found is None else found


def picture(runs: Sequence[Mapping[str, Figures]]) -> Figure:
    """Mean and standard deviation over the seeds; a dot where every seed's variants have all been seen."""
    looks = {  # Okabe and Ito's palette; the dashes tell them apart in grey
        FULL: ("#000000", "-"),
        FIRST: ("#0072b2", "-"),
        "crowding": ("#d55e00", "--"),
        "without sparsity": ("#009e73", "-"),
        "clean accuracy alone": ("#cc79a7", "--"),
        LOT: ("#e69f00", ":"),
    }
    panels = {"all three objectives at the rungs": list(looks)[1:3], "fewer, or chance, at the rungs": list(looks)[3:]}
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    for panel, (title, names) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for name in (FULL, *names):
            volumes = np.array([run[name]["volume"] for run in runs])
            colour, dashes = looks[name]
            end = int(max(np.ceil(run[name]["epochs"]) for run in runs))
            mean, deviation, at = volumes.mean(axis=0), volumes.std(axis=0, ddof=1), np.arange(end + 1)
            low, high = np.maximum(mean - deviation, 0)[: end + 1], (mean + deviation)[: end + 1]
            panel.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0, step="post")
            look = {"color": colour, "linestyle": dashes, "linewidth": 1.8, "drawstyle": "steps-post"}
            panel.plot(at, mean[: end + 1], **look, label=name)
            panel.plot(end, mean[end], "o", color=colour, markersize=5)
        panel.set(title=title, xlabel="epochs trained, over all trials", xlim=(0, None), ylim=(0, None))
        panel.grid(color="#ebebeb", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(loc="lower right", frameon=False)
    figure.axes[0].set_ylabel("hypervolume of the finished trials")
    return figure


@click.command()
@click.argument("curves", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--trials", default=18, show_default=True, type=click.IntRange(3), help="Variants of each seed.")
@click.option("--picture", "picture_path", type=click.Path(path_type=Path, dir_okay=False))
def main(curves: Path, seeds: int, trials: int, picture_path: Path | None) -> None:
    """Trains what CURVES lacks, and prints what stopping early would have saved and lost."""
    torch.set_num_threads(1)
    found = collect(curves, seeds, trials)
    runs = [as_drawn(own, seed) for seed, own in enumerate(found)]
    others = [in_any_order(own, seed) for seed, own in enumerate(found)]
    every = [one for own in found for one in own]
    counts = {status: sum(one["status"] == status for one in every) for status in ("finished", "infeasible", "failed")}
    out.print(f"{seeds} seeds of {trials} variants: {counts}; mean +- standard deviation over the seeds")
    volume = spread((float(run[FULL]["volume"][-1]) for run in runs), 4)
    out.print(f"hypervolume of all in full: {volume}, from the reference point {REFERENCE.tolist()}")
    for table in (volume_table(runs), order_table(runs, others), tau_table(found)):
        out.print(table)
    whole = [one for one in every if one["status"] != "failed"]
    parts = {"epoch": ("train", EPOCHS), "look at a rung": ("look", len(rule(ALL, FIRST).rungs)), "end": ("end", 1)}
    means = (f"{name} {np.mean([one['seconds'][key] for one in whole]) / n:.2f}" for name, (key, n) in parts.items())
    out.print(f"seconds of CPU: {', '.join(means)}")
    if picture_path:
        picture(runs).savefig(picture_path, dpi=150)


if __name__ == "__main__":
    main()
