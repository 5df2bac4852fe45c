"""The pairs of a confirmation: a member, a seed, and the stored models that are transferred from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnsweep import registry
from snnsweep.attacks import suites
from snnsweep.config import Flat, TrialConfig
from snnsweep.sweep.checkpoints import newest_first, place_of
from snnsweep.sweep.trials import flat_of

SOURCES = 5  # stored models at most that a suite transfers from: the cost of a confirmation stays linear in the front


@dataclass(frozen=True)
class Pairing:
    """Attributes:
    sweep: its folder.
    texts: hash of the space's text that each member ran with.
    front: rows of the whole front, the best first.
    suite, samples: what attacks; None for the suite's own number of samples.
    seeds: fresh ones; none to attack the stored models.
    """

    sweep: Path
    texts: Mapping[str, str]
    front: Sequence[Mapping[Any, Any]]
    suite: str
    samples: int | None
    seeds: Sequence[int]

    def of(self, row: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
        """A member's pairs.

        Raises:
            ConfigError: the suite does not go with it.
        """
        member = row["trial_id"]
        flat = flat_of(row) | {"attack.suite": self.suite, "attack.samples": self.samples}
        if self.samples is None:
            del flat["attack.samples"]  # the suite brings its own
        for seed in self.seeds or [flat["seed"]]:
            config = TrialConfig.from_flat(flat | {"seed": seed}).to_flat()
            which = f"seed{seed}" if self.seeds else "stored"
            yield {
                "trial_id": f"{member}-{which}-{self.suite}-{config['attack.samples']}",
                "member": member,
                "stored": not self.seeds,
                "flat": config,
                "sources": self._sources_of(member, config),
                "space_sha256": self.texts[member],
            }

    def _sources_of(self, member: str, config: Flat) -> list[str]:
        """Stored members to transfer from: with a fresh seed first the member's own model, then the best ones."""
        if not suites.get(self.suite)().transfers:
            return []
        needs = ("data.name", "data.path", *getattr(registry.datasets.get(config["data.name"]), "needs", ()))
        if config["threat.space"] == "encoded":
            needs += ("encoder.name", "encoder.time_steps")
        others = sorted(self.front, key=lambda row: row["trial_id"] != member)[not self.seeds :]
        alike = [row["trial_id"] for row in others if all(flat_of(row)[key] == config[key] for key in needs)]
        return [name for name in alike if has_model(self.sweep, name)][:SOURCES]


def has_model(sweep: Path, trial_id: str) -> bool:
    """Whether a trial's checkpoint is there."""
    return bool(newest_first(place_of(sweep), trial_id))
