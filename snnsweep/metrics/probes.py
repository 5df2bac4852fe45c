"""What the audit asks of a model beside the suite: a few passes and short attacks on a few samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep.attacks import Threat, suites
from snnsweep.attacks.base import attacked
from snnsweep.attacks.gradient import PGD
from snnsweep.attacks.rules import Rule, changes_nothing
from snnsweep.attacks.suites import Step, Suite
from snnsweep.models import Classifier

PROBED = 64  # samples: the cost is about 60 gradient passes of them, whatever the suite
LARGE = 0.5  # eps in L-inf at which every image may become grey (Carlini et al., 2019, arXiv 1902.06705)
GRID = (0.25, 0.5, 1.0, 2.0)  # of eps


@dataclass(frozen=True)
class Probes:
    """Over the first n samples of those that the suite attacked; the tensors are bool [n].

    Attributes:
        correct: classified right without an attack.
        eps: the threat's.
        drift: the largest |a - b| / |a| of one sample's logits in two passes over the same images.
        changed: tensors of the model's state that a pass in eval mode, or its gradient, changed.
        softmax: share of answers that are in [0, 1] and sum to 1 within 1e-5.
        saturated: right, with a cross-entropy that is exactly 0 in float32, or whose slope is.
        large: stand at L-inf 0.5 under the suite's PGD and the first rule beside the training surrogate.
        grid: stand under the suite's PGD, by eps; empty where it has none, or eps is 0.
        doubled: stand under it with twice the steps; None where the suite has a longer one itself, or none.
    """

    correct: Tensor
    eps: float
    drift: float
    changed: int
    softmax: float
    saturated: Tensor
    large: Tensor
    grid: Mapping[float, Tensor]
    doubled: Tensor | None


def plain_pgd(suite: Suite, model: nn.Module) -> list[tuple[str, PGD]]:
    """The suite's iterated PGDs on every sample under the training surrogate, with their labels, shortest first."""
    plain = [step for step in suite.steps if not step.cascaded and changes_nothing(step.rule, model)]
    found = [(step.label, step.attack) for step in plain if isinstance(step.attack, PGD) and step.attack.steps > 1]
    return sorted(found, key=lambda pair: pair[1].steps)


def run(model: Classifier, x: Tensor, y: Tensor, suite: Suite, threat: Threat, seed: int, batch: int) -> Probes:
    """Probes the model with the images x [n, C, H, W] and their labels y [n]."""
    logits, drift, count = _two_passes(model, x, y, batch)
    correct, pgd = logits.argmax(1) == y, plain_pgd(suite, model)
    attack = pgd[0][1] if pgd else PGD()

    def standing(attack: PGD, threat: Threat, *also: Rule) -> Tensor:
        steps = [Step("pgd", attack), *(Step("again", attack, rule, cascaded=True) for rule in also)]
        return suites.run(model, x, y, Suite(tuple(steps), {}), threat, seed, batch).standing()

    others = [step.rule for step in suite.steps if not changes_nothing(step.rule, model)][:1]
    grid, doubled = {}, None
    if pgd and threat.eps > 0:
        grid = {share * threat.eps: standing(attack, replace(threat, eps=share * threat.eps)) for share in GRID}
        if pgd[-1][1].steps == attack.steps:
            doubled = standing(replace(attack, steps=2 * attack.steps), threat)
    return Probes(
        correct=correct,
        eps=threat.eps,
        drift=drift,
        changed=count,
        softmax=_softmax_share(logits),
        saturated=correct & _saturated(logits, y),
        large=standing(attack, replace(threat, eps=LARGE, norm="linf"), *others),
        grid=grid,
        doubled=doubled,
    )


def _changed(model: nn.Module, before: Mapping[str, Tensor]) -> int:
    """How many tensors of the model's state are not what they were."""
    now = model.state_dict()
    return sum(not torch.equal(now[name].nan_to_num(), value.nan_to_num()) for name, value in before.items())


def _two_passes(model: Classifier, x: Tensor, y: Tensor, batch: int) -> tuple[Tensor, float, int]:
    """Logits, drift, and how much of the state two passes change, the second one with a gradient as attacks take it."""
    with attacked(model):
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        with torch.no_grad():
            first = torch.cat([model(part).float() for part in x.split(batch)])
        again = []
        for part, labels in zip(x.split(batch), y.split(batch), strict=True):
            points = part.clone().requires_grad_()
            again.append(model(points).float())
            loss = cross_entropy(again[-1], labels, reduction="sum")
            if loss.requires_grad:
                torch.autograd.grad(loss, points, materialize_grads=True)
        second = torch.cat([logits.detach() for logits in again])
        count = _changed(model, before)
    gap, size = (first - second).norm(dim=1), first.norm(dim=1)
    drift = torch.where(gap > 0, gap / size.clamp(min=1e-12), 0.0).nan_to_num(0.0)
    return first, float(drift.max()), count


def _softmax_share(logits: Tensor) -> float:
    inside = ((logits >= 0) & (logits <= 1)).all(1)
    return float((inside & ((logits.sum(1) - 1).abs() <= 1e-5)).double().mean())


def _saturated(logits: Tensor, y: Tensor) -> Tensor:
    """bool [n]: the loss, or its slope at every logit, is exactly 0."""
    logits = logits.clone().requires_grad_()
    with torch.enable_grad():
        loss = cross_entropy(logits, y, reduction="none")
        (slope,) = torch.autograd.grad(loss.sum(), logits)
    return (loss.detach() == 0) | (slope == 0).all(1)
