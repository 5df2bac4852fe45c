"""Does torch.compile pay on the CPU? Its compile time beside what a training step gains.

One network, trained step by step in turn as it is and compiled, on the same batch of digits. CPU seconds of this
process and of the compilers that it starts; the ratio is the median over the rounds, with its quartiles. It pays from
the step at which the gain has made up for the compile time, which every trial of another shape (time steps, width,
batch, residual) pays again. Two to five minutes of one core:
    OMP_NUM_THREADS=1 python benchmarks/compiled.py
"""

import os
import resource
import statistics
import tempfile
import time
from copy import deepcopy

import click
import torch
from rich.table import Table
from torch._dynamo.utils import counters

from snnsweep import TrialConfig, data
from snnsweep.evaluation import Evaluation
from snnsweep.terminal import out
from snnsweep.training.loop import Trainer

FIXED = {"data.name": "digits", "device": "cpu", "data.batch_size": 64, "encoder.time_steps": 4, "neuron.name": "if"}
ALIKE = 1e-3  # that the losses of the first steps may differ, relatively: a spike may fall on the other side


def cpu_s() -> float:
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def taken(trainer: Trainer, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """CPU seconds of one step, and its loss."""
    start = time.process_time()
    loss = float(trainer.step(*batch))
    return time.process_time() - start, loss


@click.command()
@click.option("--depth", default=10, show_default=True)
@click.option("--width", default=0.25, show_default=True)
@click.option("--rounds", default=11, show_default=True, type=click.IntRange(3))
def main(depth: int, width: float, rounds: int) -> None:
    """Prints one row."""
    torch.set_num_threads(1)
    config = TrialConfig.from_flat(FIXED | {"model.depth": depth, "model.width": width})
    trial = Evaluation(config)
    split: data.Split = trial.data.train
    batch = split.images(slice(0, config.data.batch_size)), split.y[: config.data.batch_size]
    plain = trial.trainer
    plain.model.train()
    other = deepcopy(plain.model)
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        }  # nothing is at hand
        other.network.compile()  # what unrolls over time; the encoder before it repeats the image
        compiled = Trainer(other, config, split)
        start = cpu_s()
        first = taken(compiled, batch)[1], taken(plain, batch)[1]
        taken(compiled, batch)
        compile_s = cpu_s() - start
        graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        taken(plain, batch)
        pairs = []
        for turn in range(rounds):
            order = (plain, compiled) if turn % 2 else (compiled, plain)
            found = {id(trainer): taken(trainer, batch)[0] for trainer in order}
            pairs.append((found[id(plain)], found[id(compiled)]))
    low, middle, high = statistics.quantiles([eager / fast for eager, fast in pairs], n=4, method="inclusive")
    gain = statistics.median(eager - fast for eager, fast in pairs)
    heads = ("network", "eager step, ms", "eager / compiled", "quartiles", "compile, CPU s", "graphs", "breaks", "pays")
    table = Table(*heads)
    step_ms = f"{1000 * statistics.median(eager for eager, _ in pairs):.0f}"
    pays = f"after {compile_s / gain:,.0f} steps" if gain > 0 else "never"
    name = f"ResNet-{depth}, width {width:g}, T = {config.encoder.time_steps}, batch {config.data.batch_size}"
    table.add_row(
        name, step_ms, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{compile_s:.0f}", str(graphs), str(breaks), pays
    )
    out.print(table)
    out.print(f"torch {torch.__version__}, {rounds} rounds; first losses {first[0]:.6f} compiled, {first[1]:.6f} eager")
    if not graphs or abs(first[0] - first[1]) > ALIKE * first[1]:
        raise SystemExit("nothing was compiled, or the two do not train alike")


if __name__ == "__main__":
    main()
