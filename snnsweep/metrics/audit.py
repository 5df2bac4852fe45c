"""The audit: whether the attacks failed because the model is strong, or because its gradient is bad.

No sign is no proof: models that pass every check have been broken.
"""

from collections.abc import Callable
from dataclasses import dataclass

from snnsweep.metrics import checks
from snnsweep.metrics.evidence import Evidence
from snnsweep.result import PASS, Check, Verdict

CHECKS: tuple[Callable[[Evidence], Check], ...] = (
    checks.vanished_share,
    checks.vanished_training,
    checks.rule_spread,
    checks.single_step,
    checks.black_box,
    checks.random_search,
    checks.transfer,
    checks.large_eps,
    checks.eps_grid,
    checks.more_steps,
    checks.moving_loss,
    checks.lost_share,
    checks.randomness,
    checks.state_changed,
    checks.softmax_output,
    checks.saturated,
)
# Those that have a figure whatever the suite is.
ALWAYS = (
    checks.vanished_share,
    checks.vanished_training,
    checks.large_eps,
    checks.lost_share,
    checks.randomness,
    checks.state_changed,
    checks.softmax_output,
    checks.saturated,
)


@dataclass(frozen=True)
class Audit:
    """Attributes:
    checks: all of them, those too that could not be run.
    """

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """`fail` and `suspect` by the gravest check; without a second gradient rule never a pass."""
        found = {check.verdict for check in self.checks}
        if "fail" in found:
            return "fail"
        return "suspect" if "suspect" in found or self._one_rule() else PASS

    @property
    def metrics(self) -> dict[str, float]:
        return {f"audit/{check.name}": check.value for check in self.checks if check.value is not None}

    @property
    def cause(self) -> str:
        """What failed; "" where nothing did."""
        return "; ".join(check.about for check in self.checks if check.verdict == "fail")

    @property
    def warnings(self) -> list[str]:
        """What is suspect, a line for each check."""
        found = [check for check in self.checks if check.verdict == "suspect" or check is self._one_rule()]
        return [f"audit suspect, {check.name}: {check.about}" for check in found]

    def _one_rule(self) -> Check | None:
        return next(
            (check for check in self.checks if check.name == "rule_spread" and check.verdict == "not run"), None
        )


def audit(evidence: Evidence) -> Audit:
    """Runs every check that the evidence allows."""
    return Audit(tuple(check(evidence) for check in CHECKS))
