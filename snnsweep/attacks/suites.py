"""Suites: named lists of attacks under gradient rules, with the threat and sample count that they are meant for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snnsweep.attacks.adaptive import SAPGD
from snnsweep.attacks.apgd import APGD, APGDDLR
from snnsweep.attacks.base import Attack, Outcome
from snnsweep.attacks.gradient import FGSM, PGD
from snnsweep.attacks.query import Noise
from snnsweep.attacks.rules import (
    ASSG,
    BPTR,
    HART,
    PDSG,
    RGA,
    Pool,
    Rule,
    Second,
    Training,
    changes_nothing,
    together,
)
from snnsweep.attacks.square import Square
from snnsweep.attacks.target import Target
from snnsweep.attacks.threat import Threat
from snnsweep.attacks.transfer import Transfer
from snnsweep.errors import UserError
from snnsweep.registry import suites

register, get, names = suites.register, suites.get, suites.names

SECOND_RULE = Second()
TAKEN = ("clean", "unattacked", "eps", "n", "low", "high")  # what else follows `robust_accuracy/`

HART_WIDTHS = (0.25, 0.5, 1.0, 2.0)  # of the range 0.1 to 2.45 that its authors sweep
ASSG_WIDTHS = (0.35, 0.39, 0.425, 0.46, 0.49)  # of a, over the range that its authors search


@dataclass(frozen=True)
class Step:
    """One attack under one gradient rule.

    Attributes:
        label: names its figure: `robust_accuracy/<label>`, or in a cascade `robust_accuracy/then_<label>`.
        cascaded: it attacks only what every step before it left standing, and its figure is what stands after it.
    """

    label: str
    attack: Attack
    rule: Rule = field(default_factory=Training)
    cascaded: bool = False

    @property
    def figure(self) -> str:
        """What follows `robust_accuracy/` in its figure's name."""
        return f"then_{self.label}" if self.cascaded else self.label


@dataclass(frozen=True)
class Suite:
    """Attributes:
    steps: the attacks.
    defaults: config keys with the values that hold where a trial does not give its own.
    transfers: whether sources that are at hand are transferred too.

    Raises:
        UserError: two steps whose figures would have one name.
    """

    steps: tuple[Step, ...]
    defaults: Mapping[str, Any]
    transfers: bool = False

    def __post_init__(self) -> None:
        labels = [step.label for step in self.steps]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        taken = [
            label for label in labels if label.startswith(("then_", "transfer_")) or label in TAKEN or "/" in label
        ]
        if twice or taken:
            raise UserError(
                f"a suite's steps need labels of their own; given {', '.join(map(repr, twice + taken))}; "
                f"{', '.join(TAKEN)}, then_..., transfer_... and a slash are the tool's; rename them in the suite"
            )

    def rules(self, model: nn.Module) -> set[Rule]:
        """The different gradient rules that attack this model.

        A rule that gives every `SpikingNeuron` the surrogate that it has is no second one. A model without any leaves
        a rule nothing to act on: its own gradient is the only one.
        """
        return {Training() if changes_nothing(step.rule, model) else step.rule
                for step in self.steps}  # fmt: skip


@register("quick")
def quick() -> Suite:
    """For the search: FGSM, PGD-10 under two gradient rules, noise; 8/255 on the image, 256 samples."""
    steps = (
        Step("fgsm", FGSM()),
        Step("pgd", PGD(steps=10)),
        Step("pgd_second_rule", PGD(steps=10), SECOND_RULE),
        Step("noise", Noise(draws=10)),
    )
    return Suite(steps, {"threat.eps": 8 / 255, "threat.space": "pixel", "attack.samples": 256})


@register("trail")
def trail() -> Suite:
    """The gradient-sparsity paper's (Luu et al., arXiv 2509.23762): FGSM, PGD-7; 6/255 on the encoded input.

    Its PGD steps by 0.01 at eps 6/255. One fixed surrogate: such a suite overstates robustness.
    """
    steps = (Step("fgsm", FGSM()), Step("pgd", PGD(steps=7, rel_step=0.01 / (6 / 255))))
    return Suite(steps, {"threat.eps": 6 / 255, "threat.space": "encoded", "attack.samples": 1000})


@register("standard")
def standard() -> Suite:
    """What papers report: FGSM, PGD-10, PGD-50, and PGD-50 under a second gradient rule; 8/255, the whole split."""
    steps = (
        Step("fgsm", FGSM()),
        Step("pgd", PGD(steps=10)),
        Step("pgd50", PGD(steps=50)),
        Step("pgd50_second_rule", PGD(steps=50), SECOND_RULE),
    )
    return Suite(steps, {"threat.eps": 8 / 255, "threat.space": "pixel", "attack.samples": 10**6})


@register("strong")
def strong() -> Suite:
    """A cascade: PGD-100 under eight gradient rules, APGD, SA-PGD-100 with ASSG, Square; 8/255, 1,000 samples.

    FGSM, PGD under the training surrogate, a second one and ASSG, and a hundred random draws attack every sample, so
    that the audit can set one beside the other with everything else equal; each later step only what still stands. The
    widths of HART and ASSG are searched sample by sample: the worst over four and five values, where their authors take
    the best single one. What is given as a source (another seed, a sibling, the ANN twin) comes last.
    """
    pgd = PGD(steps=100, rel_step=0.1)
    ensemble: dict[str, Rule] = {
        "bptr": BPTR(),
        "rga": RGA(),
        **{f"hart_{width:g}": HART(width) for width in HART_WIDTHS},
        "pdsg": PDSG(),
        "pool": Pool(),
    }
    steps = [Step("fgsm", FGSM()), Step("pgd", PGD(steps=10)), Step("pgd100", pgd)]
    steps += [Step("pgd_second_rule", PGD(steps=10), SECOND_RULE), Step("pgd100_second_rule", pgd, SECOND_RULE)]
    steps += [Step("pgd100_assg", pgd, ASSG()), Step("noise", Noise(draws=100))]
    steps += [Step("apgd_ce", APGD(), cascaded=True), Step("apgd_dlr", APGDDLR(), cascaded=True)]
    steps += [Step(name, pgd, rule, cascaded=True) for name, rule in ensemble.items()]
    steps += [Step(f"assg_{a:g}", SAPGD(), ASSG(a=a), cascaded=True) for a in ASSG_WIDTHS]
    steps += [Step("assg_pool", SAPGD(), together(ASSG(), Pool()), cascaded=True)]
    steps += [Step("square", Square(), cascaded=True)]
    return Suite(tuple(steps), {"threat.eps": 8 / 255, "threat.space": "pixel", "attack.samples": 1000}, transfers=True)


@dataclass(frozen=True)
class SuiteOutcome:
    """What each sample did under each step; the tensors are [n], by label.

    Attributes:
        correct: bool, classified right without an attack.
        tried: which samples the step attacked.
        fooled: where it succeeded.
        lost: where a point fooled the model on the way, and did not when it was asked again.
        losses: [points, n] on the CPU, the loss that a gradient attack went through, NaN where it did not attack or
        a sample had left.
        cascaded: labels of the steps that attacked only what stood.
    """

    correct: Tensor
    tried: dict[str, Tensor]
    fooled: dict[str, Tensor]
    lost: dict[str, Tensor]
    losses: dict[str, Tensor]
    cascaded: set[str] = field(default_factory=set)

    def figure(self, label: str) -> str:
        """What follows `robust_accuracy/` in the name of a step's figure."""
        return f"then_{label}" if label in self.cascaded else label

    def standing(self, label: str | None = None) -> Tensor:
        """bool [n]: right, and still right under that step, or under every one; of a cascaded step, after it."""
        labels = list(self.fooled)
        if label is not None:
            labels = labels[: labels.index(label) + 1] if label in self.cascaded else [label]
        alive = self.correct.clone()
        for name in labels:
            alive &= ~self.fooled[name]
        return alive


def run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    suite: Suite,
    threat: Threat,
    seed: int,
    batch: int,
    sources: Mapping[str, nn.Module] | None = None,
    guide: nn.Module | None = None,
    leaves: bool = True,
    at_once: int | None = None,
) -> SuiteOutcome:
    """Attacks x [n, C, H, W] in [0, 1] with labels y [n] by every step of the suite.

    Only samples that are right without an attack are attacked. Each step draws from its own stream of `seed`, sample by
    sample, so that its verdicts depend neither on which other steps a suite has nor on batches, but for what kernels
    round by a batch's size, models that draw noise, and rules or attacks that are not `per_sample`. Those are entered
    anew for every batch; of the others a sample leaves when it falls, and the next one takes its place.

    Args:
        batch, at_once: as of `Target`.
        sources: models by name whose adversarial points are tried on this one, where the suite does so.
        guide: what is asked on the way, as of `Attack.run`.
        leaves: whether samples leave.
    """
    target = Target(model, x, y, threat, seed, batch, at_once, leaves, guide)
    correct = target.correct()
    outcome = SuiteOutcome(correct, {}, {}, {}, {})
    transfers = [Step(f"transfer_{name}", Transfer(source), cascaded=True) for name, source in (sources or {}).items()]
    for step in (*suite.steps, *(transfers if suite.transfers else ())):
        chosen = (outcome.standing() if step.cascaded else correct).nonzero().squeeze(1)
        _note(outcome, step.label, *target.attack(step.attack, step.rule, chosen))
        if step.cascaded:
            outcome.cascaded.add(step.label)
    return outcome


def _note(outcome: SuiteOutcome, label: str, parts: Sequence[Tensor], ends: Sequence[Outcome]) -> None:
    """Writes what the batches `parts` (indices) came to into the outcome, under the step's label."""
    for name in ("tried", "fooled", "lost"):
        getattr(outcome, name)[label] = torch.zeros_like(outcome.correct)
    points = max((len(end.losses) for end in ends if end.losses is not None), default=0)
    losses = torch.full((points, len(outcome.correct)), torch.nan)
    for part, end in zip(parts, ends, strict=True):
        outcome.tried[label][part] = True
        outcome.fooled[label][part] = end.success
        outcome.lost[label][part] = end.lost
        if end.losses is not None:  # an attack may stop early where all have fallen
            losses[: len(end.losses), part.cpu()] = end.losses.float().cpu()
    if points:
        outcome.losses[label] = losses
