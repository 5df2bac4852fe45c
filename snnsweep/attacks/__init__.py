"""Attacks by name: `attacks.get("pgd")(steps=7)(model, x, y, Threat(eps=8 / 255), rng)` gives the adversarial batch."""

from snnsweep.registry import attacks as _attacks

register, get, names = _attacks.register, _attacks.get, _attacks.names

from snnsweep.attacks import gradient as _gradient  # noqa: E402, F401  (registers the built-in attacks)
from snnsweep.attacks import query as _query  # noqa: E402, F401
from snnsweep.attacks.base import Attack, Oracle, Outcome, Threat  # noqa: E402

__all__ = ["Attack", "Oracle", "Outcome", "Threat", "get", "names", "register"]
