"""What a sweep's folder says, read once, for everything that a report shows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from snnsweep import lines
from snnsweep.errors import UserError
from snnsweep.result import Direction
from snnsweep.results.files import line
from snnsweep.results.folder import RESULTS, journal_of
from snnsweep.results.front import front, numbers
from snnsweep.results.ranking import reference_point
from snnsweep.results.store import load_mixes, load_results, load_sweep
from snnsweep.results.words import varied_keys
from snnsweep.tracking.journal import SPOOL

MOST = 12  # members of a front whose lines are drawn: more can no longer be told apart
CONFIRMED = Path("confirm") / "confirm.json"
Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Swept:
    """A sweep as it lies in its folder.

    Attributes:
        folder: the sweep's.
        facts: what `sweep.json` says.
        results: a row for every trial, in the order in which they ended.
        front: those on the front, best in the first objective first.
        mixes: of two trials; may be empty.
        epochs: by trial and epoch, what was measured while it trained.
        confirmed: what `confirm.json` reports; None where the front was not confirmed.
    """

    folder: Path
    facts: Mapping[str, Any]
    results: pd.DataFrame
    front: pd.DataFrame
    mixes: pd.DataFrame
    epochs: Mapping[str, Mapping[int, Mapping[str, float]]]
    confirmed: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def objectives(self) -> dict[str, Direction]:
        return dict(self.facts["objectives"])

    @cached_property
    def varied(self) -> list[str]:
        return varied_keys(self.results)

    @cached_property
    def finished(self) -> pd.DataFrame:
        """Finished trials with a finite figure for every objective: those that the front is chosen from."""
        if self.results.empty:
            return self.results
        figures = np.column_stack([numbers(self.results, name) for name in self.objectives])
        able = (self.results["status"] == "finished").to_numpy(dtype=bool) & np.isfinite(figures).all(axis=1)
        return self.results[able]

    @cached_property
    def members(self) -> list[dict[Any, Any]]:
        """Rows of the front whose lines are drawn: all, or `MOST` spread evenly over it."""
        return spread(self.front.to_dict("records"))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many trials ended with each status."""
        return {} if self.results.empty else {str(k): int(n) for k, n in self.results["status"].value_counts().items()}

    @cached_property
    def reference(self) -> dict[str, float] | None:
        """The reference point of every hypervolume of this sweep; None before a trial has finished."""
        return reference_of(self)


def read(folder: Path) -> Swept:
    """Reads a sweep's folder.

    Raises:
        UserError: there is no sweep, or a file of it cannot be read.
    """
    facts, results = load_sweep(folder), _in_order(folder, load_results(folder))
    found = front(results, facts["objectives"])
    return Swept(folder, facts, results, found, load_mixes(folder), _epochs(folder), _confirmed(folder))


def _in_order(folder: Path, results: pd.DataFrame) -> pd.DataFrame:
    """By the last row of each trial: one that was interrupted, and resumed, has ended where it did at last."""
    last: dict[str, int] = {}
    for place, entry in enumerate(lines.after(journal_of(folder / RESULTS), holding=b'"trial_id"')):
        if entry.said is not None:
            last[str(entry.said.get("trial_id"))] = place
    if not last or results.empty:
        return results
    return results.iloc[results["trial_id"].map(last).fillna(-1).to_numpy().argsort(kind="stable")]


def spread(rows: Sequence[Any]) -> list[Any]:
    """All of them, or `MOST`, evenly over them."""
    places = sorted({round(place) for place in np.linspace(0, len(rows) - 1, min(MOST, len(rows)))})
    return [rows[place] for place in places]


def reference_of(*sweeps: Swept) -> dict[str, float] | None:
    """One reference point for all finished trials of sweeps with the same objectives."""
    objectives = sweeps[0].objectives
    points: Any = (
        [row for sweep in sweeps for row in sweep.finished[list(objectives)].to_dict("records")]
        if all(name in sweep.finished for sweep in sweeps for name in objectives)
        else []
    )
    return reference_point(objectives, points) if points else None


def _epochs(folder: Path) -> dict[str, dict[int, dict[str, float]]]:
    """What was said to MLflow of each epoch; an epoch that was trained again counts as it was the last time."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    try:
        for entry in lines.after(folder / SPOOL, holding=b'"log_epoch"'):
            if entry.said is not None and entry.said.get("call") == "log_epoch":
                said = entry.said["said"]
                found.setdefault(said["trial_id"], {})[int(said["step"])] = said["metrics"]
    except OSError as error:
        raise UserError(f"{folder / SPOOL} cannot be read ({line(error)}); mend that") from None
    return {trial: dict(sorted(steps.items())) for trial, steps in found.items()}


def _confirmed(folder: Path) -> dict[str, Any] | None:
    path = folder / CONFIRMED
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return dict(said["report"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({line(error)}); confirm again, or move it away") from None
