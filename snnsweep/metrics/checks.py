"""The audit's checks, each with a value, a threshold and a source.

A value above its threshold is a sign only where it could hardly be chance, P, so that few samples raise no alarm.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from snnsweep.attacks.gradient import FGSM
from snnsweep.attacks.query import Noise
from snnsweep.attacks.rules import acts_on_spikes, changes_nothing, neurons_of
from snnsweep.attacks.square import Square
from snnsweep.attacks.suites import Step
from snnsweep.attacks.transfer import Transfer
from snnsweep.metrics.evidence import ENOUGH, Evidence, P, exceeds, judge, mcnemar, not_run, union
from snnsweep.metrics.probes import LARGE, plain_pgd
from snnsweep.result import Check, Verdict

FEW = 3  # samples: 0.2 points of AutoAttack's thousand, exceeded; one or two of a small set are a fluke
VANISHED = 0.01  # of the samples without a gradient: above it nothing was attacked there
QUERIES = 1000  # of Square that make it a strong attack
LAST, POINTS = 10, 20  # iterates over which a loss may no longer move, and how many an attack needs to be asked

ATHALYE, CARLINI = "Athalye et al. 2018, arXiv 1802.00420", "Carlini et al. 2019, arXiv 1902.06705"
AUTOATTACK, IOAF = "Croce and Hein 2020, arXiv 2003.01690", "Pintor et al. 2022, arXiv 2106.09947"
WANG = "Wang et al. 2025, arXiv 2512.22522"
NO_PGD, TOO_FEW = "the suite has no PGD on every sample, or eps is 0", f"fewer than {ENOUGH} samples say nothing"


def vanished_share(e: Evidence) -> Check:
    """Grave until a strong attack that needs no gradient has been tried. Without a test: one sample of 64 is a sign."""
    tried = any(isinstance(step.attack, Square) and step.attack.queries >= QUERIES for step in e.suite.steps)
    about = f"the input gradient vanishes for {e.vanished:.1%} of the samples under every rule that attacked"
    so = ", and Square alone needs none" if tried else ", and no strong attack that needs none has been tried"
    grave: Verdict = "suspect" if tried else "fail"
    return judge(
        "vanished_share", e.vanished, VANISHED, f"{AUTOATTACK}; {IOAF}", e.vanished > VANISHED, about, so, grave
    )


def vanished_training(e: Evidence) -> Check:
    share = e.vanished_training
    sign = exceeds(round(share * e.samples), e.samples, 0.01)
    about = f"the input gradient vanishes for {share:.1%} of the samples under the training surrogate"
    return judge("vanished_training", share, 0.01, f"{AUTOATTACK}; {IOAF}", sign, about)


def rule_spread(e: Evidence) -> Check:
    """Pairs of the same attack on every sample: a cascade's later steps fell more by repetition alone."""
    name, limit = "rule_spread", 0.05
    ruled = [step for step in e.suite.steps if not step.cascaded and not changes_nothing(step.rule, e.model)]
    pairs = [(label, step.label) for step in ruled for label, one in plain_pgd(e.suite, e.model) if one == step.attack]
    if e.exact and not pairs:
        return judge(name, 0.0, limit, WANG, False, "the gradient is exact and needs no second rule")
    if not e.exact and not neurons_of(e.model):
        return not_run(name, limit, WANG, "the gradient is not exact, and no rule reaches what makes it so")
    paired = {label for pair in pairs for label in pair}
    if not pairs or not (e.exact or any(acts_on_spikes(step.rule) for step in ruled if step.label in paired)):
        return not_run(name, limit, WANG, "no PGD attacks every sample under two gradient rules")
    if e.few:
        return not_run(name, limit, WANG, TOO_FEW)
    found = [mcnemar(e.outcome.fooled[other], e.outcome.fooled[own]) for own, other in pairs]
    value, sign = max(gap for gap, _ in found), any(gap > limit and p < P for gap, p in found)
    about = f"another gradient rule fells {value:.3f} more than the training surrogate"
    return judge(name, value, limit, WANG, sign, about, ", which misleads", "fail")


def single_step(e: Evidence) -> Check:
    name, limit = "single_step", 0.002
    one = [step for step in e.suite.steps if isinstance(step.attack, FGSM) and not step.cascaded]
    one = [step for step in one if changes_nothing(step.rule, e.model)]
    many = plain_pgd(e.suite, e.model)
    if not one or not many:
        return not_run(name, limit, ATHALYE, "the suite has not both FGSM and PGD")
    if e.few:
        return not_run(name, limit, ATHALYE, TOO_FEW)
    value, p = mcnemar(e.outcome.fooled[one[0].label], e.outcome.fooled[many[0][0]])
    about = f"one step (FGSM) fells {value:.3f} more than PGD"
    return judge(name, value, limit, ATHALYE, value > limit and p < P, about)


def black_box(e: Evidence) -> Check:
    blind = [step.label for step in e.suite.steps if isinstance(step.attack, Noise | Square)]
    about = "an attack without gradients fell {:.3f} that no white-box attack fells"
    return _after("black_box", blind, _whites(e), e, f"{AUTOATTACK}; {CARLINI}", about)


def random_search(e: Evidence) -> Check:
    """Of the random draws that the suite makes; PGD is the one under the training surrogate."""
    drawn = {step.label: step.attack.draws for step in e.suite.steps if isinstance(step.attack, Noise)}
    pgd = [label for label, _ in plain_pgd(e.suite, e.model)]
    about = f"{sum(drawn.values())} random draws fell {{:.3f}} that PGD misses"
    return _after("random_search", list(drawn) if pgd else [], pgd, e, CARLINI, about)


def transfer(e: Evidence) -> Check:
    known = {step.label for step in e.suite.steps}
    moved = [step.label for step in e.suite.steps if isinstance(step.attack, Transfer)]
    moved += [label for label in e.outcome.fooled if label not in known]  # of the sources that were given
    about = "another model's adversarial points fell {:.3f} that no white-box attack fells"
    return _after("transfer", moved, _whites(e), e, ATHALYE, about)


def _after(name: str, labels: list[str], others: list[str], e: Evidence, source: str, about: str) -> Check:
    """Samples that these steps fell and none of the others; where answers are random, beyond what chance does.

    A step before a cascaded one of the others does not count: that one was not asked about what the step felled.
    """
    limit, order = 0.002, [step.label for step in e.suite.steps]
    later = [order.index(label) for label in others if e.cascaded([label])]
    labels = [label for label in labels if label not in order or order.index(label) > max(later, default=-1)]
    if not labels:
        return not_run(name, limit, source, "no such attack was run, or none to set beside it")
    cascaded = e.cascaded(labels)
    if e.model.random and cascaded:
        return not_run(name, limit, source, "in a cascade fresh noise alone fells samples")
    found, before = e.fooled(labels), e.fooled(others)
    count = int((found & ~before).sum())
    value = count / len(found)
    sign = value > limit and count >= FEW
    if e.model.random:
        gap, p = mcnemar(found, before)
        sign = gap > limit and p < P
    return judge(name, value, limit, source, sign, about.format(value))


def large_eps(e: Evidence) -> Check:
    hits, total = int(e.probes.large.sum()), len(e.probes.large)
    about = f"accuracy {hits / total:.3f} at L-inf {LARGE} under PGD; chance is {e.chance:.3f}"
    return judge("large_eps", hits / total, e.chance, CARLINI, exceeds(hits, total, e.chance), about)


def eps_grid(e: Evidence) -> Check:
    """Neighbours on the grid in pairs: the share that stands at the larger eps alone, less that at the smaller."""
    points = list(e.probes.grid.values())
    if not points:
        return not_run("eps_grid", 0.0, CARLINI, NO_PGD)
    if len(points[0]) < ENOUGH:
        return not_run("eps_grid", 0.0, CARLINI, TOO_FEW)
    rises = [mcnemar(after, before) for before, after in pairwise(points)]
    value = max(rise for rise, _ in rises)
    about = f"where eps grows, accuracy changes by {value:+.3f} at most"
    return judge("eps_grid", value, 0.0, CARLINI, any(rise > 0 and p < P for rise, p in rises), about)


def more_steps(e: Evidence) -> Check:
    """What a doubling of PGD's steps fells in addition; of a longer PGD in the suite its gain by doubling.

    Every point counts and both runs begin alike, so that of a model without noise the longer run fells all that the
    shorter one does: its gain is no chance of the attack, only of the samples.
    """
    name, limit, pgd = "more_steps", 0.005, plain_pgd(e.suite, e.model)
    if e.probes.doubled is not None:
        once = e.probes.grid[e.probes.eps]
        gain, p = mcnemar(once, e.probes.doubled)
        sign = exceeds(round(gain * len(once)), len(once), limit)
        sign = gain > limit and p < P if e.model.random else sign
    elif len(pgd) > 1 and pgd[-1][1].steps > pgd[0][1].steps and not e.few:
        (short, few), (long, many) = pgd[0], pgd[-1]
        gain, p = mcnemar(e.outcome.fooled[long], e.outcome.fooled[short])
        gain /= math.log2(many.steps / few.steps)
        sign = gain > limit and p < P
    else:
        return not_run(name, limit, CARLINI, TOO_FEW if pgd and e.few else NO_PGD)
    return judge(name, gain, limit, CARLINI, sign, f"twice the steps of PGD fell {gain:.3f} more")


def moving_loss(e: Evidence) -> Check:
    """Over samples that withstood it: the mean move of the best loss so far, in units of that sample's range."""
    name, limit, moves = "moving_loss", 0.05, {}
    for step in e.suite.steps:
        losses = e.outcome.losses.get(step.label)
        fell = e.outcome.fooled[step.label] | e.outcome.lost[step.label]  # an attack may have left either
        stood = (e.outcome.tried[step.label] & ~fell).cpu()
        if losses is None or step.cascaded or len(losses) < POINTS or not stood.any():
            continue
        moves[step.label] = moved(losses[:, stood])
    if not moves:
        return not_run(name, limit, IOAF, f"no attack of {POINTS} iterates on every sample, or none stood")
    worst, each = max(moves.items(), key=lambda pair: float(pair[1].mean()))
    value, doubt = float(each.mean()), 2 * float(each.std(correction=0)) / len(each) ** 0.5
    about = f"the loss of {worst} still moves by {value:.3f} of its range over the last {LAST} iterates"
    return judge(name, value, limit, IOAF, value - doubt > limit, about)


def moved(losses: Tensor) -> Tensor:
    """[n]: how far the best loss so far of [points, n], scaled to [0, 1], moves over the last `LAST` iterates."""
    best = losses.double().cummax(0).values
    low, high = losses.double().amin(0), best[-1]
    return torch.where(high > low, (best[-1] - best[-1 - LAST]) / (high - low), 0.0).nan_to_num(0.0)


def lost_share(e: Evidence) -> Check:
    """Successes that the final pass over the same point takes back."""
    value, limit = float(union(e.outcome.lost.values(), e.outcome.correct).double().mean()), 0.002
    sign = value > limit and value * len(e.outcome.correct) >= FEW
    about = f"of {value:.1%} a point fooled the model under attack and did not when it was asked again"
    return judge("lost_share", value, limit, IOAF, sign, about, grave="fail" if value > 0.01 else "suspect")


def randomness(e: Evidence) -> Check:
    limit, known = 1e-4, e.model.random
    about = f"logits differ by {e.probes.drift:.2g} between two passes over the same images"
    about += "; gradients were means of several passes (EOT)" if known else ""
    sign = e.probes.drift > limit and not known
    return judge("randomness", e.probes.drift, limit, AUTOATTACK, sign, about, ", and the attacks used no EOT")


def state_changed(e: Evidence) -> Check:
    count = e.probes.changed
    about = f"{count} tensors of the model's state change in a pass in eval mode and its gradient"
    return judge("state_changed", float(count), 0.0, CARLINI, count > 0, about, grave="fail")


def softmax_output(e: Evidence) -> Check:
    value = e.probes.softmax
    return judge("softmax_output", value, 0.5, AUTOATTACK, value > 0.5, f"{value:.0%} of the answers are a softmax")


def saturated(e: Evidence) -> Check:
    count, total = int(e.probes.saturated.sum()), int(e.probes.correct.sum())
    value = count / max(1, total)
    about = f"the cross-entropy, or its slope, is exactly 0 for {value:.1%} of the right answers"
    return judge("saturated", value, 0.01, f"{CARLINI}; {AUTOATTACK}", exceeds(count, total, 0.01), about)


def _whites(e: Evidence) -> list[str]:
    return [step.label for step in e.suite.steps if _white(step)]


def _white(step: Step) -> bool:
    return not isinstance(step.attack, Noise | Square | Transfer)
