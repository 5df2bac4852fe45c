"""How fast are attacks, beside the ways that people attack spiking networks today, and with which verdicts?

Rows: (a) PGD-7 on untrained networks, (t) on trained ones, (b) PGD-100, (d) dispatches of one PGD iteration, (e)
memory of an attack. Ratios are peer / ours in one process: CPU seconds of interleaved runs on one thread, the median
over rounds with its quartiles (of three rounds or fewer, the extremes). `whole` follows every sample to the end,
`leaving` is how suites run. Every iterate counts, of peers too, and `differ` is how many images are judged otherwise:
spiking networks turn a rounding error into another path. The paper's way is in training mode, another network. Peers
are the gradient-sparsity paper's way and torchattacks on spikingjelly's network (what one would have without
snnsweep), torchattacks and foolbox on our network (the attack loop alone, our layers and their gradients included).
torchattacks goes beside the rest:
    pip install --no-deps --target peers torchattacks==3.5.1
    PYTHONPATH=peers python benchmarks/attacks.py            # about 10 minutes on a quiet core
    PYTHONPATH=peers python benchmarks/attacks.py --quick    # a minute: fewer cells, digits alone
    PYTHONPATH=peers python benchmarks/attacks.py --rows d,e
CIFAR-10 is read from SNNSWEEP_DATA; without it the trained networks are those on digits alone.
"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import attack_peers as peers
import torch
from counters import dispatches, geometric_mean, paired, parameter, ratio, saved_bytes
from rich.table import Table
from torch import Tensor

from snnsweep import TrialConfig, models
from snnsweep.attacks import Threat
from snnsweep.attacks.base import frozen
from snnsweep.attacks.gradient import PGD
from snnsweep.config import ImageSpec
from snnsweep.errors import MissingData
from snnsweep.evaluation import Evaluation
from snnsweep.models import SNN
from snnsweep.neurons import native
from snnsweep.sweep.footprint import growth
from snnsweep.terminal import out

RGB = ImageSpec(3, 32, 32, 10, (0.5,) * 3, (0.25,) * 3)
BATCH = 16  # the paper's
IMAGENET, CIFAR = {"model.stem": "imagenet"}, {"model.stem": "cifar", "model.width": 0.25}
BASE = {**IMAGENET, "neuron.name": "if", "neuron.v_threshold": 0.5, "encoder.time_steps": 4}
# One change at a time, then all of them.
CELLS: tuple[dict[str, Any], ...] = (
    {},
    {"neuron.name": "lif"},
    {"neuron.name": "plif"},
    {"model.residual": "spiking"},
    CIFAR,
    {"encoder.time_steps": 10},
    {**CIFAR, "neuron.name": "plif", "model.residual": "spiking", "encoder.time_steps": 10},
)
DIGITS = {"model.depth": 10, "model.width": 0.25, "train.epochs": 5, "train.lr": 3e-3, "device": "cpu"}
SUBSET = {"data.name": "cifar10", "data.subset": 1000, "train.epochs": 6, "model.width": 0.5, "train.lr": 2e-3}
TRAINED = {"digits": DIGITS, "CIFAR-10, 1,000 images": {**IMAGENET, **SUBSET, "device": "cpu"}}
IMAGES = 64
Attacked = tuple[SNN, Tensor, Tensor]


def untrained(cell: dict[str, Any], images: int = BATCH, **own: Any) -> Attacked:
    """A network with settled batch statistics, and its own answers for labels."""
    torch.manual_seed(0)
    model = models.build(TrialConfig.from_flat({**BASE, **cell, **own}), RGB)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(BATCH, 3, 32, 32))
    x = torch.rand(images, 3, 32, 32)
    with torch.no_grad():
        return model.eval(), x, model(x).argmax(1)


@cache
def trained_by_name(name: str) -> Attacked | None:
    return trained(TRAINED[name])


def trained(flat: dict[str, Any]) -> Attacked | None:
    """A trained network with training images that it has right, None where the data are not there."""
    try:
        trial = Evaluation(TrialConfig.from_flat({"neuron.v_threshold": 0.5, **flat}))
    except MissingData:
        return None
    while not trial.trained:
        trial.epoch()
    model, x, y = trial.model.eval(), trial.data.train.images(slice(0, 4 * IMAGES)), trial.data.train.y[: 4 * IMAGES]
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:IMAGES]
    return model, x[right], y[right]


def ours(
    model: SNN, x: Tensor, y: Tensor, steps: int = peers.STEPS, leaves: bool = True, batch: int = IMAGES
) -> Tensor:
    """bool [n]: fooled."""
    attack = PGD(steps, peers.REL_STEP, random_start=False)
    rng = torch.Generator().manual_seed(0)
    return attack.run(model, x, y, Threat(peers.EPS), rng, batch=batch, leaves=leaves).success


def others(model: SNN, x: Tensor, y: Tensor, steps: int = peers.STEPS) -> dict[str, Callable[[], Tensor]]:
    spikingjelly = peers.Spikingjelly(model).eval()
    found: dict[str, Callable[[], Tensor]] = {}

    def add(name: str, attack: Any, network: Any) -> None:
        found[name] = partial(peers.in_batches, attack, network, x, y, BATCH, steps=steps)

    add("the paper's way", peers.papers_way, spikingjelly)
    if find_spec("torchattacks"):
        add("torchattacks, spikingjelly", peers.torchattacks, spikingjelly)
        add("torchattacks, our network", peers.torchattacks, model)
    add("foolbox, our network", peers.foolbox, model)
    return found


def compare(
    name: str, table: Table, attacked: Attacked, rounds: int, steps: int, runs: dict[str, Any]
) -> dict[str, float]:
    """Adds one row for each peer; the medians of peer / leaving."""
    verdicts: dict[str, Tensor] = {}

    def noted(way: str, run: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: verdicts.update({way: run()})

    every = {**runs, "whole": partial(ours, *attacked, steps, leaves=False), "leaving": partial(ours, *attacked, steps)}
    seconds = paired({way: noted(way, run) for way, run in every.items()}, rounds)
    own = verdicts["leaving"]
    odd = {way: int((each != own).sum()) for way, each in verdicts.items()}
    label = f"{name}\nrobust {1 - own.double().mean():.2f} of {len(own)}; whole differs in {odd['whole']}"
    for peer in runs:
        cells = []
        for side in ("whole", "leaving"):
            middle, low, high = ratio(seconds[peer], seconds[side])
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        table.add_row(label, peer, f"{len(own) / min(seconds[peer]):.1f}", *cells, str(odd[peer]))
        label = ""
    table.add_row("", "ours, leaving", f"{len(own) / min(seconds['leaving']):.1f}", "", "1", "")
    table.add_section()
    return {peer: ratio(seconds[peer], seconds["leaving"])[0] for peer in runs}


def summary(table: Table, found: list[dict[str, float]]) -> None:
    for peer in found[0]:
        each = [row[peer] for row in found if peer in row]
        table.add_row("all", peer, "", "", f"geometric mean {geometric_mean(each):.2f}, worst {min(each):.2f}", "")
    out.print(table)


def columns(title: str) -> Table:
    table = Table("network", "peer", "images/s", "peer / whole", "peer / leaving", "differ", title=title)
    return table


def row_a(quick: bool) -> None:
    grid, found = columns(f"(a) PGD-7, untrained networks, {BATCH} images, own answers as labels"), []
    for cell in CELLS[:1] if quick else CELLS:
        attacked = untrained(cell)
        runs = {name: run for name, run in others(*attacked).items() if "foolbox" not in name}
        name = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in {**BASE, **cell}.items())
        found.append(compare(name, grid, attacked, 1 if quick else 3, peers.STEPS, runs))
    summary(grid, found)


def row_t(quick: bool) -> None:
    found = []
    table = columns(f"(t) PGD-7, trained networks, {IMAGES} images that they have right")
    for name, attacked in networks(quick).items():
        found.append(compare(name, table, attacked, 1 if quick else 3, peers.STEPS, others(*attacked)))
    summary(table, found)


def networks(quick: bool) -> dict[str, Attacked]:
    made = {name: trained_by_name(name) for name in list(TRAINED)[: 1 if quick else 2]}
    return {name: attacked for name, attacked in made.items() if attacked is not None}


def row_b(quick: bool) -> None:
    table, found = columns(f"(b) PGD-100, trained networks, {IMAGES // 2} images that they have right"), []
    for name, (model, x, y) in networks(quick).items():
        attacked = model, x[: IMAGES // 2], y[: IMAGES // 2]
        runs = {peer: run for peer, run in others(*attacked, steps=100).items() if "foolbox" not in peer}
        found.append(compare(name, table, attacked, 1, 100, runs))
    summary(table, found)


def row_d(quick: bool) -> None:
    table = Table(
        "network", "paper's way", "torchattacks", "ours", "paper / ours", title="(d) dispatches of a PGD iteration"
    )
    ratios = []
    grid = product(("if", "lif", "plif"), ("sew_add", "spiking"), (IMAGENET, CIFAR), (4, 10))
    for neuron, residual, stem, steps in list(grid)[:: 6 if quick else 1]:
        cell = {**stem, "neuron.name": neuron, "model.residual": residual, "encoder.time_steps": steps}
        model, x, y = untrained(cell, 2, **{"model.width": 0.1})
        spikingjelly = peers.Spikingjelly(model).eval()
        each = [
            iteration(partial(peers.papers_way, spikingjelly, x, y)),
            iteration(partial(peers.torchattacks, spikingjelly, x, y)) if find_spec("torchattacks") else 0,
            iteration(partial(ours, model, x, y, leaves=False)),
        ]
        ratios.append(each[0] / each[2])
        table.add_row(f"{neuron}, {residual}, {stem['model.stem']}, T={steps}", *map(str, each), f"{ratios[-1]:.1f}")
    table.add_row("all", "", "", "", f"geometric mean {geometric_mean(ratios):.1f}, worst {min(ratios):.1f}")
    out.print(table)


def iteration(attack: Callable[..., Any]) -> int:
    """Of one step: what a longer attack adds."""
    return (dispatches(lambda: attack(steps=3)) - dispatches(lambda: attack(steps=1))) // 2


MEMORY = {"model.stem": "cifar", "model.width": 1.0}
WAYS = ("paper", "torchattacks", "ours")
TINY = 0.02  # of the width


def row_e(quick: bool) -> None:
    """In processes of their own: the peak of one is not another's."""
    table = Table("way", "growth of the peak, MiB", "/ ours", "kept for backward, MiB", "/ ours")
    cell = {**MEMORY, "model.width": 0.25 if quick else 1.0}
    table.title = f"(e) two PGD steps, CIFAR stem, T=4, {BATCH} images, width {cell['model.width']:g}"
    ways = [way for way in WAYS if way != "torchattacks" or find_spec("torchattacks")]
    found = {}
    for way in ways:
        command = [sys.executable, __file__, "--memory", way, "--width", str(cell["model.width"])]
        found[way] = [float(n) for n in subprocess.run(command, check=True, capture_output=True).stdout.split()]
    for way, (peak, kept) in found.items():
        table.add_row(
            way, f"{peak:.0f}", f"{peak / found['ours'][0]:.2f}", f"{kept:.0f}", f"{kept / found['ours'][1]:.2f}"
        )
    out.print(table)


def attack_way(way: str, steps: int, model: torch.nn.Module, x: Tensor, y: Tensor) -> None:
    if way == "ours":
        ours(model, x, y, steps, leaves=False)
    else:
        attack = {"paper": peers.papers_way, "torchattacks": peers.torchattacks}[way]
        attack(peers.Spikingjelly(model).eval(), x, y, steps)


def memory(way: str, width: float) -> None:
    """Prints the growth of this process' peak by two steps, and what one forward pass keeps; MiB.

    A tiny network is attacked first, so that code which is loaded at first use does not count.
    """
    attack_way(way, 2, *untrained({**MEMORY, "model.width": TINY}))
    model, x, y = untrained({**MEMORY, "model.width": width})
    spikingjelly = peers.Spikingjelly(model).eval()
    peak = growth(lambda: attack_way(way, 2, model, x, y), x.device)
    assert peak is not None, "Linux alone tells"
    image = x.clone().requires_grad_()
    if way == "ours":
        with frozen(model):
            kept = saved_bytes(lambda: model(image), but=parameter)
    else:
        kept = saved_bytes(lambda: spikingjelly.train(way == "paper")(image), but=parameter)
    print(peak / 2**20, kept / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", default="a,t,b,d,e")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=float, default=1.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        memory(given.memory, given.width)
        return
    out.print(
        f"{platform.machine()} CPU, 1 thread, torch {torch.__version__}, neurons: {native.about().partition(',')[0]}"
    )
    rows = {"a": row_a, "t": row_t, "b": row_b, "d": row_d, "e": row_e}
    for row in given.rows.split(","):
        rows[row](given.quick)


if __name__ == "__main__":
    main()
