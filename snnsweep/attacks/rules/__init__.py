"""Gradient rules: what stands for the spike's and the max pooling's derivative while attacking.

A rule is a frozen dataclass of its settings. Called with a model it gives a context; inside it the forward pass is
exact, bit for bit and draw for draw, and gradients follow the rule; afterwards the model is as it was:

    with rules.get("assg")(a=0.43)(model): ...
    with rules.together(ASSG(), Pool())(model): ...

Entering is the start of one attack run: a rule with statistics begins anew there. They belong to the slots of the
batch, so that a context is entered for one batch, whose samples keep their places (a rule without any says
`per_sample = True`, and its batches may be refilled).

Spike rules act on every `SpikingNeuron`, `pool` on every max pooling, and none on anything else. The encoders' rules
(straight-through for `direct`, `phase` and `latency`, the expectation's derivative for `poisson`) are no part of this:
they stand in the encoders and always hold.
"""

from snnsweep.attacks.rules.adaptive import ASSG, PDSG
from snnsweep.attacks.rules.base import (
    Rule,
    Together,
    acts_on_spikes,
    changes_nothing,
    get,
    names,
    neurons_of,
    per_sample,
    register,
    together,
)
from snnsweep.attacks.rules.fixed import Second, Surrogate, Training
from snnsweep.attacks.rules.pool import Pool
from snnsweep.attacks.rules.rate import BPTR, HART, RGA

__all__ = [
    "ASSG",
    "BPTR",
    "HART",
    "PDSG",
    "RGA",
    "Pool",
    "Rule",
    "Second",
    "Surrogate",
    "Together",
    "Training",
    "acts_on_spikes",
    "changes_nothing",
    "get",
    "names",
    "neurons_of",
    "per_sample",
    "register",
    "together",
]
