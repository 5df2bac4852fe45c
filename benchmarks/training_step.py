"""One training step (Adam, cross-entropy) of ours against the paper's way, SEW-ResNet-18 and its plain sibling.

The paper's way is spikingjelly's: its ResNet of its parts, multi-step mode, `functional.reset_net` after the step. Both
have the same weights and the same batch [T, N, 3, 32, 32]: N images, each T times. Adam is torch's default there, and
the fused one here, as in `snnsweep.training.loop`. Steps are interleaved, the order turned each round; times are CPU
seconds of the process on one thread, the ratio is the median over rounds of (theirs / ours) with its quartiles. Parity
is the largest difference of the logits, and of the weight gradients as a share of the layer's largest, on the first
step; in bf16 spikingjelly's membranes are rounded to bf16 too, and it means little.

    python benchmarks/training_step.py              # about four minutes on a quiet core
    python benchmarks/training_step.py --quick      # three rows
    python benchmarks/training_step.py --compile    # torch.compile of theirs beside it, one row; minutes to compile
    python benchmarks/training_step.py --profile    # torch.profiler of a step of each
    python benchmarks/training_step.py --kept       # both with freed memory kept, as a trial on the CPU keeps it
    python benchmarks/training_step.py --counts     # dispatches, and bytes kept for the backward pass
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from counters import dispatches, parameter, saved_bytes
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from snnsweep import models
from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.machine import hardware, keep_freed_memory
from snnsweep.training.spike_bits import as_bits, pack

SPEC = ImageSpec(3, 32, 32, 10, (0.5,) * 3, (0.25,) * 3)
THRESHOLD, TAU = 0.5, 2.0
THEIRS = {"if": neuron.IFNode, "lif": neuron.LIFNode, "plif": neuron.ParametricLIFNode}
TAUS = {"if": {}, "lif": {"tau": TAU}, "plif": {"init_tau": TAU}}


@dataclass(frozen=True)
class Row:
    """One comparison; `batch` is N."""

    neuron: str
    residual: str
    stem: str
    time_steps: int
    precision: str
    batch: int

    def __str__(self) -> str:
        sizes = f"T={self.time_steps} N={self.batch}"
        return f"{self.neuron} | {self.residual} | {self.stem} | {sizes} | {self.precision}"


def rows(quick: bool) -> list[Row]:
    """Both stems, both lengths and precisions for LIF; the other neurons and the plain residual at T = 4."""
    sizes = {("imagenet", 4): 16, ("imagenet", 10): 8, ("cifar", 4): 4, ("cifar", 10): 2}
    found = [
        Row("lif", "sew_add", stem, steps, precision, batch)
        for (stem, steps), batch in sizes.items()
        for precision in ("fp32", "bf16")
    ]
    if quick:
        return [row for row in found if row.stem == "imagenet" and row.time_steps == 4] + [found[4]]
    others = [("if", "sew_add"), ("plif", "sew_add"), ("lif", "spiking")]
    return found + [
        Row(name, residual, stem, 4, "fp32", sizes[stem, 4])
        for name, residual in others
        for stem in ("imagenet", "cifar")
    ]


def ours(row: Row) -> nn.Module:
    config = TrialConfig.from_flat(
        {
            "model.residual": row.residual,
            "model.stem": row.stem,
            "neuron.name": row.neuron,
            "neuron.v_threshold": THRESHOLD,
            "neuron.tau": TAU,
            "encoder.time_steps": row.time_steps,
        }
    )
    return models.build(config, SPEC).network


def theirs(row: Row, source: nn.Module) -> nn.Module:
    """spikingjelly's, with the weights of ours: their parts come in the same order."""
    build = sew_resnet.sew_resnet18 if row.residual == "sew_add" else spiking_resnet.spiking_resnet18
    own = {"cnf": "ADD"} if row.residual == "sew_add" else {}
    fire = {"surrogate_function": surrogate.ATan(alpha=2.0), "detach_reset": True, "v_threshold": THRESHOLD}
    net = build(num_classes=10, spiking_neuron=THEIRS[row.neuron], **own, **fire, **TAUS[row.neuron])
    if row.stem == "cifar":
        net.conv1 = layer.Conv2d(3, 64, 3, padding=1, bias=False)
    functional.set_step_mode(net, "m")
    values, names = source.state_dict(), net.state_dict()
    net.load_state_dict(dict(zip(names, values.values(), strict=True)))
    return net


class Side:
    """A network with its optimiser."""

    def __init__(self, net: nn.Module, row: Row, x: Tensor, y: Tensor, own: bool = True, packed: bool = False):
        self.net, self.row, self.x, self.y, self.own, self.packed = net, row, x, y, own, packed
        fused = True if own else None  # as in snnsweep.training.loop
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused)

    def loss(self) -> Tensor:
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=self.row.precision == "bf16")
        with as_bits() if self.packed else nullcontext(), bf16:
            self.logits = self.net(self.x).float().mean(0)
            return cross_entropy(self.logits, self.y)

    def backward(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        if not self.own:
            functional.reset_net(self.net)

    def step(self) -> None:
        self.backward()
        self.optimizer.step()

    def timed(self) -> float:
        start = time.process_time()
        self.step()
        return time.process_time() - start


def sides(row: Row) -> dict[str, Side]:
    torch.manual_seed(0)
    source = ours(row)
    image, y = torch.rand(row.batch, 3, 32, 32), torch.randint(0, 10, (row.batch,))
    x = ((image - 0.5) / 0.25).expand(row.time_steps, *image.shape)
    found = {}
    net = theirs(row, source)
    found["theirs"] = Side(net, row, x, y, own=False)
    found["ours"] = Side(source, row, x, y)
    for name in ("channels last", "packed"):
        twin = ours(row)
        twin.load_state_dict(source.state_dict())
        last = name == "channels last"
        if last:
            twin = twin.to(memory_format=torch.channels_last)
        code = image_last(x) if last else x
        found[name] = Side(twin, row, code, y, packed=name == "packed")
    return found


def image_last(x: Tensor) -> Tensor:
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def parity(found: dict[str, Side]) -> tuple[float, float]:
    """Largest difference of logits, and of gradients as a share of the layer's largest, before any step."""
    for side in (found["theirs"], found["ours"]):
        side.backward()
    one, other = ([p.grad for p in found[name].net.parameters()] for name in ("theirs", "ours"))
    apart = [float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in zip(one, other, strict=True)]
    return float((found["theirs"].logits - found["ours"].logits).detach().abs().max()), max(apart)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def compare(row: Row, rounds: int) -> dict[str, Any]:
    found = sides(row)
    logits, gradients = parity(found)
    times: dict[str, list[float]] = {name: [] for name in found}
    for i in range(rounds + 1):
        for name in list(found)[:: 1 if i % 2 else -1]:
            seconds = found[name].timed()
            if i:  # the first is to warm up
                times[name].append(seconds)
    ratios = {
        name: quartiles([a / b for a, b in zip(times["theirs"], times[name], strict=True)])
        for name in found
        if name != "theirs"
    }
    cost = statistics.median(times["theirs"])
    told = " | ".join(f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in ratios.values())
    print(f"| {row} | {1000 * cost:.0f} | {told} | {logits:.1e} | {gradients:.1e} |", flush=True)
    return {"row": row, "ratios": ratios}


def table(quick: bool, rounds: int) -> None:
    print(
        "| neuron | residual | stem | size | precision | theirs, ms | ours | channels last | packed | logits | grads |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found = [compare(row, rounds) for row in rows(quick)]
    for precision in ("fp32", "bf16"):
        for name in ("ours", "channels last", "packed"):
            values = [one["ratios"][name][0] for one in found if one["row"].precision == precision]
            mean = statistics.geometric_mean(values)
            print(f"{precision}, {name}: geometric mean {mean:.2f}, worst {min(values):.2f}, n = {len(values)} rows")


def counts() -> None:
    """Operations of a pass forward and backward, and bytes kept between them."""
    print("| neuron | T | dispatches: theirs | ours | ratio | kept, MB: theirs | ours | ours packed |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ("if", "lif", "plif"):
        for steps in (4, 10):
            found = sides(Row(name, "sew_add", "imagenet", steps, "fp32", 16))
            operations = [dispatches(found[side].backward) for side in ("theirs", "ours")]
            kept = [saved_bytes(found[side].loss, but=parameter) / 1e6 for side in ("theirs", "ours")]
            packed = saved_bytes(found["ours"].loss, but=parameter, pack=pack) / 1e6
            told = f"{operations[0]} | {operations[1]} | {operations[0] / operations[1]:.1f} | {kept[0]:.1f}"
            told += f" | {kept[1]:.1f} ({kept[0] / kept[1]:.2f}x) | {packed:.1f} ({kept[0] / packed:.2f}x)"
            print(f"| {name} | {steps} | {told} |")


def compiled(rounds: int) -> None:
    """Theirs through torch.compile, beside ours."""
    row = Row("lif", "sew_add", "imagenet", 4, "fp32", 16)
    found = sides(row)
    start = time.perf_counter()
    found["theirs"].net = torch.compile(found["theirs"].net)
    found["theirs"].step()
    print(f"compiled in {time.perf_counter() - start:.0f} s")
    found["theirs"].step()
    pairs = [(found["theirs"].timed(), found["ours"].timed()) for _ in range(rounds)]
    middle, low, high = quartiles([a / b for a, b in pairs])
    print(f"{row}: compiled theirs / ours {middle:.2f} ({low:.2f}-{high:.2f})")


def profiled() -> None:
    found = sides(Row("lif", "sew_add", "imagenet", 4, "fp32", 16))
    for name in ("theirs", "ours"):
        found[name].step()
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            found[name].step()
        print(name)
        print(trace.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("quick", "kept", "compile", "profile", "counts"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.kept:
        keep_freed_memory()
    print(f"{hardware('cpu')}, {given.threads} thread(s), torch {torch.__version__}")
    if given.counts:
        counts()
    elif given.profile:
        profiled()
    elif given.compile:
        compiled(given.rounds)
    else:
        table(given.quick, given.rounds)


if __name__ == "__main__":
    main()
