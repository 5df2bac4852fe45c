"""What one trial gave: a frozen `Result`, and the one place where metric names are spelled."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from snnsweep.config import TrialConfig
from snnsweep.errors import UnknownName, nearest

Status = Literal["finished", "stopped", "failed", "infeasible"]
Direction = Literal["maximize", "minimize"]
Verdict = Literal["pass: no sign found", "suspect", "fail"]
PASS: Verdict = "pass: no sign found"

OBJECTIVES: dict[str, Direction] = {
    "clean_accuracy": "maximize",
    "robust_accuracy": "maximize",
    "gradient_sparsity": "maximize",
    "gradient_sparsity/pixel": "maximize",
    "gradient_sparsity/encoded": "maximize",
    "gradient_sparsity/zero_share": "maximize",
    "gradient_sparsity/hoyer": "maximize",
    "gradient_sparsity/weights": "maximize",
    "gradient_sparsity/weights_zero_share": "maximize",
    "gradient_sparsity/small_share": "maximize",
    "gradient_sparsity/gini": "maximize",
    "gradient_sparsity/l1": "minimize",
    "gradient_sparsity/l2": "minimize",
    "gradient_sparsity/vanished_share": "minimize",
    "gradient_sparsity/tiny_share": "minimize",
    "gradient_sparsity/second_rule": "maximize",
    "gradient_sparsity/second_rule/pixel": "maximize",
    "gradient_sparsity/second_rule/encoded": "maximize",
    "gradient_sparsity/second_rule/zero_share": "maximize",
    "gradient_sparsity/second_rule/hoyer": "maximize",
    "gradient_sparsity/second_rule/weights": "maximize",
    "gradient_sparsity/second_rule/weights_zero_share": "maximize",
    "gradient_sparsity/second_rule/gini": "maximize",
    "gradient_sparsity/second_rule/small_share": "maximize",
    "gradient_sparsity/second_rule/l1": "minimize",
    "gradient_sparsity/second_rule/l2": "minimize",
    "gradient_sparsity/second_rule/vanished_share": "minimize",
    "audit/vanished_share": "minimize",
    "activity/firing_rate": "minimize",
    "activity/silent_share": "minimize",
    "activity/synops": "minimize",
    "activity/acs": "minimize",
    "activity/macs": "minimize",
    "activity/energy_pj": "minimize",
    "activity/ann_energy_pj": "minimize",
    "activity/parameters": "minimize",
    "time/train_s": "minimize",
    "time/attack_s": "minimize",
    "time/latency_ms": "minimize",
}
DEFAULT_OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
OF_SPIKES = ("activity/firing_rate", "activity/silent_share")  # which an ANN twin has not
PER_ATTACK = "robust_accuracy/"
PER_EPS = "robust_accuracy/eps/"  # and a multiple of threat.eps: what stands there under the audit's PGD, few samples
PER_LAYER = "gradient_sparsity/zero_share/"
PER_LAYER_HOYER = "gradient_sparsity/hoyer/"
PER_WEIGHT = "gradient_sparsity/weights/"
PER_WEIGHT_ZEROS = "gradient_sparsity/weights_zero_share/"
PER_NEURON = "activity/firing_rate/"
PER_CHECK = "audit/"
ON_THE_WAY = "rung/"  # before a metric that was measured at a rung, by a lighter suite than at the end
FAMILIES: dict[str, Direction] = {  # by the prefix that an attack's or a layer's name follows
    PER_ATTACK: "maximize",
    PER_LAYER: "maximize",
    PER_LAYER_HOYER: "maximize",
    PER_WEIGHT: "maximize",
    PER_WEIGHT_ZEROS: "maximize",
    PER_NEURON: "minimize",
    PER_CHECK: "minimize",
}


def direction(metric: str) -> Direction:
    """Whether more of a metric is better.

    Raises:
        UnknownName: no trial reports such a metric. Whether an attack or a layer of that name exists
            depends on the variant and is not known here.
    """
    if metric in OBJECTIVES:
        return OBJECTIVES[metric]
    for prefix, better in FAMILIES.items():
        if metric.startswith(prefix):
            return better
    raise UnknownName(f"unknown objective {metric!r}; {nearest(metric, OBJECTIVES)}")


class Check(BaseModel):
    """One of the audit's checks of whether the attacks failed because the gradient is bad.

    Attributes:
        value: None where it was not run; also the metric `audit/<name>`.
        threshold: above it the value is a sign, where it is significant.
        source: the paper that the check is from.
        about: what was found, or why it was not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    verdict: Verdict | Literal["not run"]
    value: float | None
    threshold: float
    source: str
    about: str

    def __str__(self) -> str:
        figures = "" if self.value is None else f" ({self.value:.4g}, threshold {self.threshold:.4g})"
        return f"{self.name}: {self.verdict}{figures}: {self.about} [{self.source}]"


class Result(BaseModel):
    """One trial's outcome.

    Attributes:
        status: `finished`; `infeasible` (its figures cannot be believed); `failed`; `stopped` (early).
        metrics: by name; accuracies, shares and sparsities are fractions in [0, 1].
        warnings: what the reader of the figures has to know.
        epochs: epochs trained.
        cause: why it failed or is infeasible, else "".
        history: one dict of metrics per epoch.
        verdict: the audit's; "" where nothing was attacked.
        checks: what the verdict rests on.
        hardware: what it ran on, without which its times say little.
    """

    # NaN and infinities survive JSON, by which a result travels
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    status: Status
    config: TrialConfig
    metrics: dict[str, float] = {}
    warnings: tuple[str, ...] = ()
    epochs: int = 0
    cause: str = ""
    history: tuple[dict[str, float], ...] = ()
    verdict: Verdict | Literal[""] = ""
    checks: tuple[Check, ...] = ()
    hardware: str = ""

    @property
    def clean_accuracy(self) -> float:
        """The share of the validation images that are right, in [0, 1]; a KeyError where the trial failed."""
        return self.metrics["clean_accuracy"]

    @property
    def robust_accuracy(self) -> float:
        """The share of the attacked images that no attack fools, in [0, 1]; a KeyError where the trial failed."""
        return self.metrics["robust_accuracy"]

    @property
    def gradient_sparsity(self) -> float:
        """The mean Hoyer sparsity of the input gradient, in [0, 1]; a KeyError where the trial failed."""
        return self.metrics["gradient_sparsity"]

    def __repr__(self) -> str:
        """A line: how it ended, the figures with their intervals, the verdict and how much there is to read."""
        said = [self.status, *filter(None, map(self._figure, DEFAULT_OBJECTIVES))]
        said += [f"audit: {self.verdict}"] if self.verdict else []
        said += [f"{len(self.warnings)} warnings"] if self.warnings else []
        said += [f"cause: {self.cause}"] if self.cause else []
        return f"Result({', '.join(said)})"

    __str__ = __repr__

    def _figure(self, name: str) -> str:
        if name not in self.metrics:
            return ""
        low, high, n = (self.metrics.get(f"{name}/{of}", float("nan")) for of in ("low", "high", "n"))
        return f"{name} {self.metrics[name]:.3f} [{low:.3f}, {high:.3f}] of {n:.0f}"

    def row(self, trial_id: str) -> dict[str, Any]:
        """The trial as one row of `results.parquet`."""
        head = {"trial_id": trial_id, "status": self.status}
        audit = {"audit": self.verdict, "audit_checks": [str(check) for check in self.checks]}
        tail = {"hardware": self.hardware, "epochs": self.epochs, "warnings": list(self.warnings), "cause": self.cause}
        return {**head, **self.config.to_flat(), **self.metrics, **audit, **tail}
