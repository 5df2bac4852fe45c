"""How far below PGD-10 with the training surrogate is the strong suite, and what does the audit say? (digits)

Networks trained adversarially at the eps of the attack; 144 validation images for each of three seeds. A
spiking network and its ANN twin, whose gradient is exact. About 15 minutes on one core:
    python benchmarks/strong_suite.py
"""

from collections import Counter
from statistics import mean, stdev

import torch
from rich.table import Table

from snnsweep import Result, TrialConfig, evaluate
from snnsweep.terminal import out

EPS, SEEDS = 0.1, range(3)
FIXED = {
    "model.depth": 10,
    "model.width": 0.25,
    "train.epochs": 12,
    "train.lr": 3e-3,
    "train.objective": "adversarial",
    "train.eps": EPS,
    "threat.eps": EPS,
    "attack.suite": "strong",
    "device": "cpu",
}
NETWORKS = {
    "spiking": {},
    "ANN twin": {"neuron.name": "relu", "encoder.time_steps": 1},
}
FIGURES = {
    "clean": "clean_accuracy",
    "PGD-10": "robust_accuracy/pgd",
    "PGD-100": "robust_accuracy/pgd100",
    "strong": "robust_accuracy",
}


def row(results: list[Result]) -> list[str]:
    """n, mean and spread over seeds of each figure and of PGD-10 less strong; the verdicts, and which checks speak."""
    values = {name: [result.metrics[metric] for result in results] for name, metric in FIGURES.items()}
    values["PGD-10 - strong"] = [a - b for a, b in zip(values["PGD-10"], values["strong"], strict=True)]
    verdicts = Counter(result.verdict for result in results)
    signs = Counter(check.name for result in results for check in result.checks if check.verdict in ("suspect", "fail"))
    samples = f"{len(results)} x {results[0].metrics['robust_accuracy/n']:.0f}"
    spread = [f"{mean(each):.3f} +- {stdev(each):.3f}" for each in values.values()]
    return [samples, *spread, *(", ".join(f"{n} {word}" for word, n in counts.items()) for counts in (verdicts, signs))]


def main() -> None:
    torch.set_num_threads(1)
    table = Table("network", "n", *FIGURES, "PGD-10 - strong", "verdicts", "signs")
    table.title = f"eps {EPS:g}; mean and standard deviation over {len(SEEDS)} seeds"
    for name, network in NETWORKS.items():
        results = [evaluate(TrialConfig.from_flat({**FIXED, **network, "seed": seed})) for seed in SEEDS]
        table.add_row(name, *row(results))
    out.print(table)


if __name__ == "__main__":
    main()
