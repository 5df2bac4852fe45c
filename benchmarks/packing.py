"""Does one process that trains K trials as one model beat K trials one after the other, or K processes at once?

SEW-ResNet-18 (7x7 stem, 3x32x32 images, batch 16, T = 4) at full, quarter and eighth width, and a small network for
digits (ResNet-10 at quarter width, 1x8x8, batch 64, T = 4). Every trial has its own threshold, tau, surrogate width,
rate and seed. A step is forward, backward and Adam. The images are random: what they show costs nothing.

- in a row: process CPU time of K separate steps over that of a pack's step, one thread, interleaved, median of the
  rounds' ratios and their quartiles
- processes: wall time of K processes, a step each at the same time on these cores, one thread each, over a pack's step
  with a thread for each core. Only worth reading on a quiet machine; beside it the ratio of their CPU times
- operators of a step, views not counted, with Adam as torch runs it on a CPU (one tensor after the other) and as on
  CUDA (`foreach`); and how far the first logits are from the separate ones (0: bit for bit)

    python benchmarks/packing.py                                # all, some minutes on two quiet cores
    python benchmarks/packing.py --nets eighth digits --members 2 8 --no-processes
    python benchmarks/packing.py --drift 5                      # what becomes of rounding in five epochs of digits
"""

import argparse
import multiprocessing as mp
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from counters import dispatches
from torch import Tensor

from snnsweep import TrialConfig, data, models
from snnsweep.evaluation import Evaluation
from snnsweep.machine import hardware
from snnsweep.training.loop import Trainer
from snnsweep.training.packed import Pack

SEW = {"data.name": "cifar10", "model.depth": 18, "model.stem": "imagenet", "data.batch_size": 16}
NETS: dict[str, dict[str, Any]] = {
    "full": {**SEW, "model.width": 1.0},
    "quarter": {**SEW, "model.width": 0.25},
    "eighth": {**SEW, "model.width": 0.125},
    "digits": {"data.name": "digits", "model.depth": 10, "model.width": 0.25, "data.batch_size": 64},
}
Step = Callable[[], object]


def trainer(net: str, member: int) -> tuple[Trainer, Tensor, Tensor]:
    """A trial with values of its own, and a batch."""
    own = {"seed": member, "train.lr": 1e-3 / (1 + member), "neuron.v_threshold": 0.7 + 0.1 * member}
    own |= {"neuron.tau": 1.5 + 0.2 * member, "neuron.alpha": 2 + 0.25 * member, "device": "cpu"}
    config = TrialConfig.from_flat({**NETS[net], **own})
    spec, rng = data.get(config.data.name).spec, torch.Generator().manual_seed(member)
    size = config.data.batch_size
    x = torch.rand(size, spec.channels, spec.height, spec.width, generator=rng)
    y = torch.randint(spec.classes, (size,), generator=rng)
    torch.manual_seed(member)
    return Trainer(models.build(config, spec).train(), config, data.Split((x * 255).byte(), y)), x, y


def alone(net: str, member: int, foreach: bool = False) -> Step:
    one, x, y = trainer(net, member)
    one.optimizer.param_groups[0]["foreach"] = foreach or None
    return lambda: one.step(x, y)


def packed(net: str, members: int) -> Step:
    trainers, xs, ys = zip(*(trainer(net, member) for member in range(members)), strict=True)
    pack, x, y = Pack(trainers), torch.stack(xs), torch.stack(ys)
    return lambda: pack.step(x, y)


def parity(net: str, members: int) -> float:
    """Largest difference of the first logits in training mode."""
    trainers, xs, _ = zip(*(trainer(net, member) for member in range(members)), strict=True)
    together = Pack(trainers).model(torch.stack(xs))
    apart = torch.stack([one.model(x) for one, x in zip(trainers, xs, strict=True)])
    return float((together - apart).detach().abs().max())


def operators(step: Step) -> int:
    step()  # the first one makes the optimiser's state
    return dispatches(step)


def timed(step: Step, clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return clock() - start


class Process:
    """One trial in a process of its own, which steps when it is told to."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()


def _serve(pipe: Any) -> None:
    torch.set_num_threads(1)
    step: Step = lambda: None  # noqa: E731
    while (told := pipe.recv()) is not None:
        if told == "step":
            pipe.send(timed(step, time.process_time))
        else:
            step = alone(*told)
            step()
            pipe.send(0.0)


def tell(processes: list[Process], what: list[Any]) -> float:
    """Tells each one its own, waits for all; their CPU seconds."""
    for process, one in zip(processes, what, strict=True):
        process.pipe.send(one)
    return sum(process.pipe.recv() for process in processes)


def rounds_of(net: str, members: int, rounds: int, pool: list[Process]) -> list[str]:
    """Peer over pack: in a row; processes by the wall and by CPU time, where there is a pool."""
    apart, together = [alone(net, member) for member in range(members)], packed(net, members)
    crew, cores = pool[:members], len(os.sched_getaffinity(0))
    tell(crew, [(net, member) for member in range(len(crew))])
    ratios = []
    for one in (*apart, together, together):
        one()
    for _ in range(rounds):
        in_a_row = timed(lambda: [one() for one in apart], time.process_time)
        pack_cpu = timed(together, time.process_time)
        found = [in_a_row / pack_cpu]
        if crew:
            start = time.perf_counter()
            crew_cpu = tell(crew, ["step"] * members)
            crew_wall = time.perf_counter() - start
            torch.set_num_threads(cores)
            found += [crew_wall / timed(together, time.perf_counter), crew_cpu / pack_cpu]
            torch.set_num_threads(1)
        ratios.append(found)
    return [said(list(one)) for one in zip(*ratios, strict=True)]


def said(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--members", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-processes", action="store_true")
    parser.add_argument("--drift", type=int, metavar="EPOCHS")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.drift:
        return drift(given.drift)
    cores = len(os.sched_getaffinity(0))
    print(f"peer over pack, {given.rounds} rounds; {hardware('cpu')}, {cores} cores, load {os.getloadavg()[0]:.0f}")
    peers = ["in a row, CPU"] + ([] if given.no_processes else ["processes, wall", "processes, CPU"])
    columns = ["network", "K", *peers, "operators", "of K trials", "with foreach", "logits differ by"]
    print(row(columns), row(["---"] * len(columns)), sep="\n", flush=True)
    pool = [] if given.no_processes else [Process() for _ in range(max(given.members))]
    for net in given.nets:
        one = operators(alone(net, 0)), operators(alone(net, 0, foreach=True))
        for members in given.members:
            counts = map(str, (operators(packed(net, members)), members * one[0], members * one[1]))
            ratios = rounds_of(net, members, given.rounds, pool)
            print(row([net, str(members), *ratios, *counts, f"{parity(net, members):.1g}"]), flush=True)
    for process in pool:
        process.pipe.send(None)


def drift(epochs: int) -> None:
    """Four trials on digits, each alone and all in a pack: what rounding has become after some epochs."""
    pairs = []
    for member in range(4):
        own = {"seed": member, "neuron.v_threshold": 0.7 + 0.2 * member, "train.lr": 3e-3 / (1 + member)}
        config = TrialConfig.from_flat({**NETS["digits"], **own, "train.epochs": epochs, "device": "cpu"})
        pairs.append((Evaluation(config), Evaluation(config)))
    pack = Pack([together.trainer for _, together in pairs])
    for _ in range(epochs):
        outcomes = pack.epoch()
    print(row(["member", "loss alone", "packed", "validation accuracy alone", "packed", "answers that differ"]))
    print(row(["---"] * 6))
    for member, ((alone, together), outcome) in enumerate(zip(pairs, outcomes, strict=True)):
        losses = [alone.epoch()["train/loss"] for _ in range(epochs)][-1], outcome["train/loss"]
        right = [one.measurement.correct() for one in (alone, together)]
        shares = [float(one.double().mean()) for one in right]
        differ = f"{int((right[0] != right[1]).sum())} of {len(right[0])}"
        print(row([str(member), *(f"{one:.4f}" for one in (*losses, *shares)), differ]), flush=True)


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
