"""Which fixed surrogate attacks best, over networks trained with wide and narrow ones? (PGD-10, eps 0.1, digits)

The search attacks under a second gradient rule; the best is one that no training surrogate starves.
    python benchmarks/second_rule.py
"""

from rich.table import Table

from snnsweep import TrialConfig
from snnsweep.attacks import Threat, suites
from snnsweep.attacks.gradient import PGD
from snnsweep.attacks.rules import Surrogate, Training
from snnsweep.evaluation import Evaluation
from snnsweep.results.words import number
from snnsweep.terminal import out

RULES = {
    "training": Training(),
    **{f"atan {alpha:g}": Surrogate("atan", alpha) for alpha in (0.5, 1, 2, 3, 5)},
    **{f"sigmoid {alpha:g}": Surrogate("sigmoid", alpha) for alpha in (1, 2, 4, 8)},
}
NETWORKS = (
    {},
    {"neuron.alpha": 5.0},
    {"neuron.alpha": 15.0},
    {"neuron.surrogate": "sigmoid", "neuron.alpha": 4.0},
    {"neuron.surrogate": "sigmoid", "neuron.alpha": 15.0},
    {"neuron.v_threshold": 2.0},
    {"neuron.v_threshold": 0.5, "encoder.time_steps": 8, "neuron.name": "if"},
)
FIXED = {"model.depth": 10, "model.width": 0.25, "train.epochs": 8, "train.lr": 3e-3, "device": "cpu"}


def robust_accuracies(network: dict[str, object]) -> list[float]:
    """Of one network, trained with seed 0: clean, then under each rule; n = 144."""
    trial = Evaluation(TrialConfig.from_flat({**FIXED, **network}))
    while not trial.trained:
        trial.epoch()
    x, y = trial.data.validation.images(), trial.data.validation.y
    suite = suites.Suite(tuple(suites.Step(name, PGD(10), rule) for name, rule in RULES.items()), {})
    outcome = suites.run(trial.model, x, y, suite, Threat(eps=0.1), seed=0, batch=len(x))
    return [float(outcome.correct.double().mean()), *(float(outcome.standing(n).double().mean()) for n in RULES)]


def main() -> None:
    table = Table("trained with", "clean", *RULES)
    rows = [robust_accuracies(network) for network in NETWORKS]
    for network, row in zip(NETWORKS, rows, strict=True):
        table.add_row(" ".join(f"{key}={value}" for key, value in network.items()) or "defaults", *map(number, row))
    table.add_section()
    table.add_row("mean", *(number(sum(column) / len(rows)) for column in zip(*rows, strict=True)))
    out.print(table)


if __name__ == "__main__":
    main()
