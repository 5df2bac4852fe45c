"""What a trial and a result cost the driver, beside stock Ray Tune, in one run on one machine.

Both run the same stubs (two epochs, then a result of some 190 figures) on as many slots, with Optuna's TPE over the
same space and MLflow in sqlite. Stock is a function trainable with `OptunaSearch`, `MLflowLoggerCallback` and Tune's
default loggers; a second stock has no MLflow. Every run is a process of its own with a Ray of its own, and the kinds
take turns. What is counted begins when as many trials have ended as there are slots. CPU times are what a busy
machine does not spoil; slot time is wall time. About 8 minutes on two busy cores:
    python benchmarks/driver_cost.py
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.table import Table
from scale_parts import QUESTION, SPACE, StubSweep, Template, ask_stock, real_trial
from scale_stub import stock_trial

from snnsweep.sweep.space import Space
from snnsweep.terminal import out

OURS, STOCK, NO_MLFLOW = "snnsweep", "stock Tune", "stock Tune without MLflow"
KINDS = (OURS, STOCK, NO_MLFLOW)
SLOT_S, ALLOWED = 60, 0.01  # of a trial's time, the share that may go to the driver
ROUNDS, SLEEP_S, SLOTS = 3, 5.0, 2
TRIALS = {OURS: 40, STOCK: 8, NO_MLFLOW: 8}  # a run; stock takes some seconds for each
RESULTS = 3  # a trial
COLUMNS = ("main thread, CPU ms", "driver, CPU ms", "other processes, CPU ms", "slot time, s")
Cost = dict[str, float]


class Meter:
    """Costs a trial between two ends of trials; the processes of Ray are looked at four times a second."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, float, float]] = []
        self._others: dict[int, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def trial_ended(self) -> None:
        """To be called in the main thread."""
        now = (time.thread_time(), time.process_time(), sum(self._others.copy().values()), time.perf_counter())
        self.marks.append(now)

    def cost(self) -> Cost:
        first, last = self.marks[SLOTS - 1], self.marks[-1]
        count = len(self.marks) - SLOTS
        main, driver, others, wall = ((new - old) / count for old, new in zip(first, last, strict=True))
        return dict(zip(COLUMNS, (1e3 * main, 1e3 * driver, 1e3 * others, wall * SLOTS), strict=True))

    def _watch(self) -> None:
        while True:
            self._others |= below(os.getpid())
            time.sleep(0.25)


def below(root: int) -> dict[int, float]:
    """CPU seconds of each process that descends from `root`, as Linux counts them."""
    parents, used = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pid = int(entry.name)
            parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found, generation = set(), {root}
    while generation := {pid for pid, parent in parents.items() if parent in generation} - found:
        found |= generation
    return {pid: used[pid] for pid in found}


def ours(template: Template, trials: int, home: Path) -> tuple[Cost, int]:
    import ray

    ray.init(address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    meter = Meter()

    def listener(progress: Any) -> None:
        if progress.done > len(meter.marks):
            meter.trial_ended()

    sweep = StubSweep(Space("scale_space.py", QUESTION), trials, storage=home, name="s", listener=listener)
    sweep.template = template
    sweep.run()
    rows = sweep.results()
    if list(rows["status"]) != ["finished"] * trials:
        raise RuntimeError(f"not all trials finished: {rows['cause'].unique()}")
    return meter.cost(), len({tuple(said) for said in rows["warnings"]})


def stock(template: Template, trials: int, home: Path, with_mlflow: bool) -> tuple[Cost, int]:
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # an epoch has none of the objectives
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    meter, found = Meter(), set()

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            meter.trial_ended()
            found.add(trial.last_result["process"])

        def __getstate__(self) -> dict[str, Any]:
            return {}

    ways = ["max" if way == "maximize" else "min" for way in SPACE.objectives.values()]
    callbacks: list[tune.Callback] = [Watch()]
    if with_mlflow:
        uri = f"sqlite:///{home}/mlflow.db"
        callbacks.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock"))
    tune.Tuner(
        tune.with_resources(tune.with_parameters(stock_trial, template=template), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(ask_stock, metric=list(SPACE.objectives), mode=ways, seed=0),
            num_samples=trials,
            max_concurrent_trials=SLOTS,
        ),
        run_config=tune.RunConfig(name="s", storage_path=str(home), callbacks=callbacks, verbose=0),
    ).fit()
    if len(meter.marks) != trials:
        raise RuntimeError(f"{len(meter.marks)} of {trials} trials finished")
    return meter.cost(), len(found)


def measured(kind: str, template: Template, trials: int) -> tuple[Cost, int]:
    with tempfile.TemporaryDirectory() as home, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_in_its_process, kind, template, trials, Path(home)).result()


def _in_its_process(kind: str, template: Template, trials: int, home: Path) -> tuple[Cost, int]:
    os.chdir(home)  # MLflow's callback leaves its files where it stands
    with (home / "log.txt").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        if kind == OURS:
            return ours(template, trials, home)
        return stock(template, trials, home, kind == STOCK)


def table(title: str, costs: dict[str, list[Cost]], processes: dict[str, list[int]]) -> Table:
    """Medians with the least and the most of the rounds; ratios are of each round's own pair."""
    found = Table("a trial costs", *costs, *(f"{kind} / ours" for kind in costs if kind != OURS), title=title)
    for column in COLUMNS:
        cells = [_spread([cost[column] for cost in costs[kind]]) for kind in costs]
        for kind in costs:
            if kind != OURS:
                pairs = zip(costs[kind], costs[OURS], strict=True)
                cells.append(_spread([theirs[column] / max(mine[column], 1e-9) for theirs, mine in pairs]))
        found.add_row(column, *cells)
    counts = [", ".join(map(str, processes[kind])) for kind in costs]
    found.add_row("processes that ran trials", *counts)
    return found


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def rounds(title: str, kinds: Sequence[str], count: int, template: Template) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    processes: dict[str, list[int]] = {kind: [] for kind in kinds}
    for turn in range(count):
        for kind in kinds if turn % 2 == 0 else reversed(kinds):
            cost, used = measured(kind, template, TRIALS[kind])
            costs[kind].append(cost)
            processes[kind].append(used)
    out.print(table(title, costs, processes))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="all costs, to a file")
    asked = parser.parse_args()
    template = real_trial()
    out.print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {SLOTS} slots, {RESULTS} results")
    counts = ", ".join(f"{count} of {kind}" for kind, count in TRIALS.items())
    idle = rounds(f"no-op trials, {asked.rounds} rounds: {counts}", KINDS, asked.rounds, template)
    slow = template | {"sleep_s": SLEEP_S}
    slept = rounds(f"trials that sleep {SLEEP_S:g} s", (OURS, STOCK), 1, slow)
    for kind, costs in idle.items():
        lost = statistics.median(cost["slot time, s"] for cost in costs)
        main_ms = statistics.median(cost["main thread, CPU ms"] for cost in costs)
        said = f"slot time without work is {lost / SLOT_S:.2%} of a trial of {SLOT_S} s (allowed {ALLOWED:.0%})"
        out.print(f"{kind}: {said}; main thread {main_ms / RESULTS:.1f} ms of CPU a result")
    for kind, costs in slept.items():
        lost = costs[0]["slot time, s"] - SLEEP_S
        out.print(f"{kind}: a trial that sleeps {SLEEP_S:g} s holds its slot {lost:.2f} s longer")
    if asked.json:
        asked.json.write_text(json.dumps({"no-op": idle, "sleep": slept}))


if __name__ == "__main__":
    main()
