"""Whether figures were judged alike, within a sweep and between two: else they are no measure of each other."""

from typing import Any

import pandas as pd

from snnsweep.report.data import Swept
from snnsweep.report.methods import suite_steps
from snnsweep.results.words import JUDGED_BY, value

COUNTS = {"robust_accuracy/n": "number of attacked samples", "clean_accuracy/n": "number of validation images"}
ALIKE = {key: what for key, what in JUDGED_BY.items() if key != "attack.samples"} | COUNTS  # n says what was attacked
SHOWN = 6  # values that are listed, at most


def mixed(swept: Swept) -> list[str]:
    """A sentence for each thing that was not alike among the finished trials of a sweep."""
    found = {what: _values(swept, key) for key, what in ALIKE.items()}
    return [
        f"Not judged alike: the finished trials have more than one {what} ({_listed(key, found[what])}). Their figures "
        "do not compare, and the front mixes them."
        for key, what in ALIKE.items()
        if len(found[what]) > 1
    ]


def clashes(one: Swept, other: Swept) -> list[str]:
    """What is not alike and makes figures of the two sweeps no measure of each other."""
    said = []
    for key, what in ALIKE.items():
        mine, theirs = _values(one, key), _values(other, key)
        if mine != theirs or len(mine) > 1:
            sides = f"(A: {_listed(key, mine)}; B: {_listed(key, theirs)})"
            said.append(f"Not comparable as it is: the {what} differs {sides}.")
    hashes = [swept.facts.get("space", {}).get("sha256") for swept in (one, other)]
    shared = [suite for suite in _values(one, "attack.suite") if suite in _values(other, "attack.suite")]
    own = [str(suite) for suite in shared if not suite_steps(str(suite))]
    if own and (hashes[0] != hashes[1] or hashes[0] is None):
        said.append(
            f"Not comparable as it is: suite {', '.join(own)} is the spaces' own, and their texts differ, so that "
            "one name may stand for two attacks."
        )
    versions = [str(swept.facts.get("versions", {}).get("snnsweep")) for swept in (one, other)]
    if versions[0] != versions[1]:
        said.append(f"They ran with different versions of snnsweep (A: {versions[0]}; B: {versions[1]}).")
    return said


def _values(swept: Swept, key: str) -> list[Any]:
    """What finished trials have, each once and in order; a path that was not given is none."""
    rows = swept.results[swept.results["status"] == "finished"] if len(swept.results) else pd.DataFrame()
    return sorted(rows[key].dropna().unique().tolist()) if key in rows else []


def _listed(key: str, values: list[Any]) -> str:
    shown = ", ".join(value(key, one) for one in values[:SHOWN])
    return (shown or "none") + (", ..." if len(values) > SHOWN else "")
