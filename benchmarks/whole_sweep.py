"""What is a whole sweep worth beside a loop over a train-then-attack script? CPU time of all processes, on real digits.

Ours is `snnsweep run` with looks at a trial after 2, 4 and 6 epochs (`--epochs 18 --eta 3`: 2, 6 and 18), where who
falls behind on the way is stopped; Ray, Optuna, MLflow, the audit and the start of everything are included. Beside it
every variant that the sweep chose goes through the script of the gradient-sparsity paper (Luu et al., arXiv 2509.23762)
in its way: spikingjelly's modules in multi-step mode, batches of 16, after every epoch FGSM and PGD-7 on the whole
held-out split, made in train mode with `loss.backward(retain_graph=True)`. Both train the same network from the same
weights (their logits are compared first), attack the code at one eps, and are judged on the same 144 images. CPU time,
Linux alone:
    OMP_NUM_THREADS=1 python benchmarks/whole_sweep.py
    OMP_NUM_THREADS=1 python benchmarks/whole_sweep.py --quick       # six trials: that it runs, not what it is worth

The script's loop runs in two processes, and takes no further variant after `--minutes`: its time for all of them is
then scaled up from those it ran, which cost much the same each.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep import Sweep, TrialConfig, data, load_results, models
from snnsweep.config import DEFAULTS
from snnsweep.data import Split, batches
from snnsweep.models.base import Normalize
from snnsweep.results.ranking import kendall_tau
from snnsweep.sweep.space import Space
from snnsweep.terminal import err, out

SPACE = '''"""Which threshold, rate, pooling and residual?"""
EPOCHS, ETA = {epochs}, {eta}
OBJECTIVES = ("robust_accuracy", "clean_accuracy")
RUNGS = {"grace": 2, "eta": ETA, "suite": "trail", "samples": 64}
FIXED = {"data.name": "digits", "data.subset": 320, "data.batch_size": 16, "model.name": "resnet", "model.depth": 18,
         "model.width": 0.125, "encoder.name": "direct", "encoder.time_steps": 4, "neuron.name": "if",
         "neuron.reset": "hard", "neuron.detach_reset": True, "neuron.surrogate": "atan", "neuron.alpha": 2.0,
         "train.epochs": EPOCHS, "train.optimizer": "adam", "train.schedule": "constant", "train.weight_decay": 0.0,
         "attack.suite": "trail", "attack.samples": 144, "threat.space": "encoded", "threat.eps": 0.05}

def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.3, 1.5)
    trial.suggest_float("train.lr", 5e-4, 2e-2, log=True)
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand"])
    return FIXED
'''
JOIN = {"sew_add": lambda x, y: x + y, "sew_and": lambda x, y: x * y, "sew_iand": lambda x, y: x * (1 - y)}
STEPS, REL_STEP = 7, 0.01 / (6 / 255)  # of PGD, as in the suite `trail`
BATCH, SIDE_BY_SIDE, TOP, LOOK_S = 16, 2, 5, 0.2
SUBREAPER = 36  # prctl's number: what a child leaves behind becomes ours, and its time is counted


class Block(nn.Module):
    """A basic block of SEW-ResNet, of spikingjelly's parts; names as in snnsweep, so that the weights can be taken."""

    def __init__(self, inputs: int, width: int, stride: int, config: TrialConfig):
        super().__init__()
        self.join = JOIN[config.model.residual]
        self.conv1, self.norm1, self.neuron1 = _unit(inputs, width, 3, stride, config)
        self.conv2, self.norm2, self.neuron2 = _unit(width, width, 3, 1, config)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != width:
            for name, part in zip(("conv", "norm", "neuron"), _unit(inputs, width, 1, stride, config), strict=True):
                self.shortcut.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron1(self.norm1(self.conv1(x)))
        return self.join(self.shortcut(x), self.neuron2(self.norm2(self.conv2(spikes))))


class Network(nn.Module):
    """SEW-ResNet-18 with the 3x3 stem, of spikingjelly's parts in multi-step mode: [T, N, C, H, W] -> [N, classes]."""

    def __init__(self, config: TrialConfig, spec: Any):
        super().__init__()
        width = round(64 * config.model.width)
        self.normalize = Normalize(spec.mean, spec.std)
        pool = {"max": layer.MaxPool2d, "avg": layer.AvgPool2d}[config.model.pooling](3, 2, 1, step_mode="m")
        self.stem = nn.Sequential()
        for name, part in zip(("conv", "norm", "neuron"), _unit(spec.channels, width, 3, 1, config), strict=True):
            self.stem.add_module(name, part)
        self.stem.add_module("pool", pool)
        inputs = width
        for stage in range(1, 5):
            outputs, blocks = width * 2 ** (stage - 1), nn.Sequential()
            for i in (1, 2):
                blocks.add_module(f"block{i}", Block(inputs, outputs, 2 if stage > 1 and i == 1 else 1, config))
                inputs = outputs
            self.add_module(f"stage{stage}", blocks)
        self.pool = layer.AdaptiveAvgPool2d(1, step_mode="m")
        self.head = layer.Linear(inputs, spec.classes, step_mode="m")

    def forward(self, code: Tensor) -> Tensor:
        x = self.stem(self.normalize(code))
        for stage in range(1, 5):
            x = self.get_submodule(f"stage{stage}")(x)
        return self.head(self.pool(x).flatten(2)).mean(0)


def _unit(inputs: int, outputs: int, kernel: int, stride: int, config: TrialConfig) -> tuple[nn.Module, ...]:
    conv = layer.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False, step_mode="m")
    fires = neuron.IFNode(
        v_threshold=config.neuron.v_threshold,
        surrogate_function=surrogate.ATan(alpha=config.neuron.alpha),
        detach_reset=config.neuron.detach_reset,
        step_mode="m",
    )
    return conv, layer.BatchNorm2d(outputs, step_mode="m"), fires


def encoded(x: Tensor, config: TrialConfig) -> Tensor:
    return x.unsqueeze(0).repeat(config.encoder.time_steps, 1, 1, 1, 1)


def begun(config: TrialConfig, sets: data.Data) -> Network:
    """The script's network with the weights that the sweep's trial begins with.

    Raises:
        RuntimeError: the two do not give the same logits.
    """
    torch.manual_seed(config.seed)
    ours, theirs = models.build(config, sets.spec), Network(config, sets.spec)
    theirs.load_state_dict(
        ours.network.state_dict() | {f"normalize.{k}": v for k, v in ours.normalize.state_dict().items()}
    )
    x = sets.validation.images(slice(0, 32))
    with torch.no_grad():
        gap = (ours.eval()(x) - theirs.eval()(encoded(x, config))).abs().max()
    functional.reset_net(theirs)
    if not gap < 1e-4:
        raise RuntimeError(f"the script's network is another one: logits differ by {gap}")
    return theirs


def scripted(config: TrialConfig) -> dict[str, float]:
    """One variant through the script; the figures after its last epoch."""
    sets = data.load(config, "cpu")
    network = begun(config, sets)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.train.lr)
    rng = torch.Generator().manual_seed(config.seed)
    figures: dict[str, float] = {}
    for _ in range(config.train.epochs):
        network.train()
        for x, y in batches(sets.train, BATCH, rng, config.data.augment):
            optimizer.zero_grad()
            cross_entropy(network(encoded(x, config)), y).backward()
            optimizer.step()
            functional.reset_net(network)
        figures = attacked(network, sets.validation, config)
    return figures


def attacked(network: nn.Module, split: Split, config: TrialConfig) -> dict[str, float]:
    """Accuracy on the whole split, clean, under FGSM, under PGD-7, and under both."""
    eps = config.threat.eps
    kept: dict[str, list[Tensor]] = {"clean_accuracy": [], "fgsm": [], "pgd": [], "robust_accuracy": []}
    for part in torch.arange(len(split)).split(BATCH):
        code, y = encoded(split.images(part), config), split.y[part]
        start = (code + torch.empty_like(code).uniform_(-eps, eps)).clamp(0, 1)
        points = (
            code,
            stepped(network, code, code, y, 1, eps, eps),
            stepped(network, code, start, y, STEPS, REL_STEP * eps, eps),
        )
        clean, fgsm, pgd = (answers(network, point) == y for point in points)
        for name, right in zip(kept, (clean, fgsm, pgd, clean & fgsm & pgd), strict=True):
            kept[name].append(right)
    return {name: float(torch.cat(parts).double().mean()) for name, parts in kept.items()}


def stepped(network: nn.Module, code: Tensor, start: Tensor, y: Tensor, steps: int, size: float, eps: float) -> Tensor:
    """Signed steps in the ball around `code`, as the script takes them: in train mode, through every parameter."""
    network.train()
    adv = start
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        cross_entropy(network(adv), y).backward(retain_graph=True)
        functional.reset_net(network)
        assert adv.grad is not None
        adv = (code + (adv + size * adv.grad.sign() - code).clamp(-eps, eps)).clamp(0, 1)
    return adv.detach()


@torch.no_grad()
def answers(network: nn.Module, code: Tensor) -> Tensor:
    found = network.eval()(code).argmax(1)
    functional.reset_net(network)
    return found


def spent(root: int) -> dict[tuple[str, str], float]:
    """CPU seconds of every process below `root`, its own alone, by process id and start."""
    lines = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            lines[file.parent.name] = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
    below = {str(root)}
    while more := {pid for pid, line in lines.items() if line[1] in below} - below:
        below |= more
    ticks = os.sysconf("SC_CLK_TCK")
    return {(pid, lines[pid][19]): (int(lines[pid][11]) + int(lines[pid][12])) / ticks for pid in below & lines.keys()}


def timed(*commands: Sequence[str]) -> tuple[float, float]:
    """CPU and wall seconds of commands side by side, with everything that they start and leave behind.

    Looked up while they run, since Ray's own parent processes do not wait for their children, whose time the system
    then tells nobody: what a process takes in its last fifth of a second may be missing.

    Raises:
        RuntimeError: one failed.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    since, seen = time.monotonic(), dict[tuple[str, str], float]()
    running = [subprocess.Popen([sys.executable, __file__, *command]) for command in commands]
    mine = [key for key in spent(os.getpid()) if key[0] == str(os.getpid())]
    while any(process.poll() is None for process in running):
        seen |= spent(os.getpid())
        time.sleep(LOOK_S)
    if any(process.returncode for process in running):
        raise RuntimeError(f"exit codes {[process.returncode for process in running]}")
    return sum(taken for key, taken in seen.items() if key not in mine), time.monotonic() - since


def best(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The top trials, by robust and then by clean accuracy."""
    ranked = sorted(rows, key=lambda name: (rows[name]["robust_accuracy"], rows[name]["clean_accuracy"]), reverse=True)
    return ranked[:TOP]


def verdicts(ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """How far the two agree on who is best, of the trials that the script has run."""
    ended = {name: row for name, row in ours.items() if row["status"] in ("finished", "infeasible")}
    yield f"ours: {len(ended)} of {len(ours)} trained to the end, {len(ours) - len(ended)} stopped at a rung or failed"
    both = {name: row for name, row in ended.items() if name in theirs}
    tops = {"ours": (best(both), both), "the script": (best(theirs), theirs)}
    same = len(set(tops["ours"][0]) & set(tops["the script"][0]))
    chance = len(tops["ours"][0]) * len(tops["the script"][0]) / max(1, len(theirs))
    yield f"{same} of the top {TOP} by final robust accuracy are the same, of {len(theirs)}; by chance {chance:.1f}"
    for name in ("robust_accuracy", "clean_accuracy"):
        tau = kendall_tau([both[trial][name] for trial in both], [theirs[trial][name] for trial in both])
        yield f"Kendall's tau in {name}: {tau if tau is None else round(tau, 2)}, over {len(both)} trained whole"
    for who, (names, rows) in tops.items():
        yield f"best by {who}: " + ", ".join(f"{name} {rows[name]['robust_accuracy']:.3f}" for name in names)


def report(home: Path, trials: int, seed: int, minutes: float, epochs: int, eta: int) -> None:
    length = ["--epochs", str(epochs), "--eta", str(eta)]
    our_cpu, our_wall = timed(["--ours", str(home), "--trials", str(trials), "--seed", str(seed), *length])
    ours = load_results(home / "s").set_index("trial_id").to_dict("index")
    points = {name: {key: row[key] for key in DEFAULTS} for name, row in ours.items()}
    (home / "points.json").write_text(json.dumps(points))
    parts = [["--script", str(home), "--part", str(i), "--minutes", str(minutes)] for i in range(SIDE_BY_SIDE)]
    cpu, wall = timed(*parts)
    theirs: dict[str, dict[str, float]] = {}
    for file in home.glob("script-*.json"):
        theirs |= json.loads(file.read_text())
    whole = cpu * len(ours) / len(theirs)
    table = Table("", "trials run", "CPU s", "CPU s a trial", "trials an hour of one core", "wall s")
    for name, count, seconds, took in (
        ("snnsweep", len(ours), our_cpu, our_wall),
        ("the script", len(theirs), cpu, wall),
    ):
        table.add_row(
            name, str(count), f"{seconds:.0f}", f"{seconds / count:.2f}", f"{3600 * count / seconds:.0f}", f"{took:.0f}"
        )
    out.print(table)
    said = f"{epochs} epochs, eta {eta}, one run, seed {seed}"
    out.print(f"script / snnsweep, CPU for all {len(ours)}: {whole / our_cpu:.2f}  ({said})")
    for line in verdicts(ours, theirs):
        out.print(line, soft_wrap=True)


def run_script(home: Path, part: int, minutes: float) -> None:
    end, found = time.monotonic() + 60 * minutes, {}
    for name, flat in list(json.loads((home / "points.json").read_text()).items())[part::SIDE_BY_SIDE]:
        if time.monotonic() > end:
            break
        found[name] = scripted(TrialConfig.from_flat(flat))
        err.print(f"script {name}: {found[name]}")
        (home / f"script-{part}.json").write_text(json.dumps(found))


@click.command()
@click.option("--trials", default=32, show_default=True, type=click.IntRange(2))
@click.option("--seed", default=0, show_default=True)
@click.option("--minutes", default=4.0, show_default=True, help="After which the script takes no further variant.")
@click.option("--epochs", default=6, show_default=True)
@click.option("--eta", default=2, show_default=True)
@click.option("--quick", is_flag=True, help="Six trials.")
@click.option("--ours", hidden=True, type=click.Path(path_type=Path))
@click.option("--script", hidden=True, type=click.Path(path_type=Path))
@click.option("--part", hidden=True, type=int)
def main(
    trials: int,
    seed: int,
    minutes: float,
    epochs: int,
    eta: int,
    quick: bool,
    ours: Path | None,
    script: Path | None,
    part: int | None,
) -> None:
    """Runs both, and prints how much CPU time each took and whether they agree."""
    torch.set_num_threads(1)
    if ours:
        space = Space("whole_sweep", SPACE.replace("{epochs}", str(epochs)).replace("{eta}", str(eta)))
        Sweep(space, trials, storage=ours, name="s", seed=seed, sampler="random", max_concurrent=SIDE_BY_SIDE).run()
    elif script and part is not None:
        run_script(script, part, minutes)
    else:
        with tempfile.TemporaryDirectory() as home:
            report(Path(home), 6 if quick else trials, seed, minutes, epochs, eta)


if __name__ == "__main__":
    main()
