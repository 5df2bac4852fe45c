"""What a sweep's driver costs at 100, 1,000 and 10,000 trials, with trials that cost nothing.

Ray runs for real (three nodes in one machine, GPUs that are not there), and so does everything of the driver's: the
searcher, the store, the study, MLflow by sqlite and over HTTP. Only the trials are stubs, which report what a real
trial on digits reported. CPU time is of the calling thread, and does not count what other processes took meanwhile;
wall time does. docs/scale.md says what follows. Everything takes most of an hour on two cores, a row some minutes:
    python benchmarks/scale.py
    python benchmarks/scale.py --trials 100 1000 --rows ask mlflow
"""

import argparse
import os
import secrets
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # read by Ray when it is imported
    _TOKEN = Path(tempfile.mkdtemp()) / "token"
    _TOKEN.write_text(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_TOKEN)}

import scale_rows
from rich.table import Table
from scale_parts import Line, Template, real_trial

from snnsweep.terminal import out

TRIALS = (100, 1_000, 10_000)
MOST_WITH_RAY = 1_000  # stubs that Ray runs: ten thousand take hours on two cores
MOST_IN_SQLITE = 1_000  # trials of a study: to fill it with ten times as many takes most of an hour
SAMPLERS = ("grid", "random", "nsga2", "nsga3", "tpe")
SMALL = (*SAMPLERS, "gp")  # which takes minutes for an ask at 1,000
ROWS = ("ray", "epochs", "driver", "ask", "mlflow", "resume")
LONGER = 6  # times as many epochs, in the row `epochs`: what a result costs without the trial that it is of


def in_own_process(measure: Callable[..., list[Line]], trials: int, template: Template, *given: Any) -> list[Line]:
    """So that nothing is warm, and the memory is its own."""
    with tempfile.TemporaryDirectory() as home, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, trials, template, Path(home), *given).result()


def measured(row: str, sizes: Sequence[int], template: Template, seconds: float | None) -> Iterator[list[Line]]:
    """One row's lines, as they come."""
    if row == "mlflow":
        for over in ("sqlite", "HTTP"):
            yield in_own_process(scale_rows.mlflow, scale_rows.TOLD_TO_MLFLOW, template, over)
        return
    if row == "epochs":
        longer = template | {"history": template["history"] * LONGER}
        yield in_own_process(scale_rows.with_ray, min(sizes), longer)
        return
    for trials in sizes:
        if row == "ray" and trials <= MOST_WITH_RAY:
            yield in_own_process(scale_rows.with_ray, trials, template, seconds)
        elif row == "driver":
            yield in_own_process(scale_rows.without_ray, trials, template)
        elif row == "resume":
            yield resumed(trials, template)
        elif row == "ask":
            for storage in ("journal", "sqlite") if trials <= MOST_IN_SQLITE else ("journal",):
                samplers = SMALL if trials < 1_000 else SAMPLERS
                yield in_own_process(scale_rows.ask, trials, template, storage, samplers)


def resumed(trials: int, template: Template) -> list[Line]:
    with tempfile.TemporaryDirectory() as home:
        for measure in (scale_rows.make_ended, scale_rows.resumed):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                lines = pool.submit(measure, trials, template, Path(home)).result()
    return lines


def table_of(row: str, lines: Sequence[Line]) -> Table:
    """Medians, quartiles and counts."""
    table = Table("what", "trials", "wall", "quartiles", "CPU", "quartiles", "n", "unit", title=row)
    for line in lines:
        cells = [*_spread(line.wall), *_spread(line.cpu)]
        table.add_row(line.what, f"{line.trials:,}", *cells, str(len(line.wall)), line.unit)
    return table


def _spread(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "", ""
    if len(values) == 1:
        return _figure(values[0]), ""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return _figure(middle), f"{_figure(low)} to {_figure(high)}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def growth(lines: Sequence[Line]) -> Table:
    """The same line at one size and the next: what is linear in all costs the same for each trial."""
    table = Table("what", "trials", "CPU, times", title="growth of the cost of one")
    for before in lines:
        later = [one for one in lines if one.what == before.what and one.trials == 10 * before.trials and one.cpu]
        for after in later:
            ratio = statistics.median(after.cpu) / max(statistics.median(before.cpu), 1e-9)
            table.add_row(before.what, f"{before.trials:,} to {after.trials:,}", f"{ratio:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=TRIALS)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seconds", type=float, help="that Ray runs at most, in the row `ray`; counted is what ended")
    asked = parser.parse_args()
    template = real_trial()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    out.print(f"{len(os.sched_getaffinity(0))} cores, load {load}; {len(template['metrics'])} metrics a trial")
    for row in asked.rows:
        found: list[Line] = []
        for lines in measured(row, asked.trials, template, asked.seconds):
            out.print(table_of(row, lines))
            found += lines
        if (grown := growth(found)).row_count:
            out.print(grown)


if __name__ == "__main__":
    main()
