"""Problems that answer at once, with three objectives to be minimised and one constraint: for benchmarks/sampler.py."""

import math
from collections.abc import Callable

import optuna

Answer = tuple[list[float], float]  # three values, and the constraint: above 0 where the trial failed
RESIDUALS = ("sew_add", "sew_and", "sew_iand", "spiking", "membrane")
POOLINGS = ("max", "avg", "stride")


def dtlz2(trial: optuna.Trial) -> Answer:
    """DTLZ2 (Deb et al., 2002) with 12 variables: the front is an eighth of the unit sphere."""
    x = [trial.suggest_float(f"x{index}", 0, 1) for index in range(12)]
    radius = 1 + sum((value - 0.5) ** 2 for value in x[2:])
    one, two = x[0] * math.pi / 2, x[1] * math.pi / 2
    return [
        radius * math.cos(one) * math.cos(two),
        radius * math.cos(one) * math.sin(two),
        radius * math.sin(one),
    ], 0.0


def spiking(trial: optuna.Trial) -> Answer:
    """Shaped like our spaces, and made up: 10 to 12 parameters of every kind, in branches, and networks that are dead.

    Clean accuracy, robust accuracy and sparsity pull against each other through threshold, time steps, residual,
    pooling, surrogate and defence; a network that hardly fires or learns is told the worst, as the sweep would tell it.
    """
    threshold = trial.suggest_float("neuron.v_threshold", 0.3, 2.0)
    steps = trial.suggest_int("encoder.time_steps", 2, 10)
    residual = RESIDUALS.index(trial.suggest_categorical("model.residual", RESIDUALS))
    pooling = POOLINGS.index(trial.suggest_categorical("model.pooling", POOLINGS))
    lr = math.log10(trial.suggest_float("train.lr", 1e-4, 1e-1, log=True))
    decay = math.log10(trial.suggest_float("train.weight_decay", 1e-6, 1e-2, log=True))
    width = math.log2(trial.suggest_float("neuron.alpha", 0.5, 8.0, log=True))
    leak = _leak(trial, residual)
    defence, cost, thinned = _defence(trial)

    rate = 1 / (1 + math.exp(3 * (threshold - 1.0 - 0.05 * steps + 0.1 * residual)))
    learns = _bump(lr, -2.2 + 0.15 * residual - 0.2 * (pooling == 1), 0.8)
    clean = (0.55 + 0.4 * (1 - math.exp(-steps / 4))) * (0.35 + 0.65 * learns) * leak * cost
    clean *= _bump(rate, 0.45 + 0.05 * pooling, 0.45) * (0.8 + 0.2 * _bump(width, 1.0 + 0.3 * residual, 1.5))
    clean *= 0.9 + 0.1 * _bump(decay, -4, 1.5)
    if rate < 0.12 or clean < 0.12:
        return [0.0, 0.0, 0.0], 1.0
    quiet = 0.45 * _bump(threshold, 1.5 - 0.05 * steps, 0.6) * (1.2 - 0.2 * pooling)
    sparse = min(1.0, 0.15 + quiet * (0.7 + 0.3 * _bump(width, 2.5, 1.0)) + thinned)
    starved = 0.25 * sparse * _bump(steps, 4, 3)
    robust = clean * min(1.0, 0.15 + 0.75 * defence + starved + 0.1 * (RESIDUALS[residual] == "membrane"))
    return [-clean, -robust, -sparse], 0.0


def _leak(trial: optuna.Trial, residual: int) -> float:
    neuron = trial.suggest_categorical("neuron.name", ["if", "lif", "plif"])
    if neuron == "if":
        return 0.96
    tau = trial.suggest_float("neuron.tau", 1.1, 4.0) if neuron == "lif" else 2.0
    return 1 - 0.04 * abs(tau - 2.0 - 0.2 * residual)


def _defence(trial: optuna.Trial) -> tuple[float, float, float]:
    """How much it defends, the factor of clean accuracy that it leaves, and the sparsity that it adds."""
    objective = trial.suggest_categorical("train.objective", ["natural", "adversarial", "trades", "sparse_gradient"])
    defence, thinned = 0.0, 0.0
    if objective in ("adversarial", "trades"):
        eps = trial.suggest_float("train.eps", 0.005, 0.05, log=True)
        defence = 12 * eps
    if objective == "trades":
        defence *= 0.75 * (0.5 + trial.suggest_float("train.beta", 1, 10) / 10)
    if objective == "sparse_gradient":
        weight = math.log10(trial.suggest_float("train.sr_weight", 1e-4, 1e-1, log=True))
        defence, thinned = 0.25 * _bump(weight, -2.2, 0.7), 0.25 * _bump(weight, -1.5, 0.6)
    defence = min(defence, 1.0)
    return defence, 1 - 0.5 * defence**1.5, thinned


def _bump(value: float, middle: float, width: float) -> float:
    return math.exp(-(((value - middle) / width) ** 2))


PROBLEMS: dict[str, tuple[Callable[[optuna.Trial], Answer], list[float]]] = {  # with the reference point
    "spiking": (spiking, [0.0, 0.0, 0.0]),
    "dtlz2": (dtlz2, [2.0, 2.0, 2.0]),
}
