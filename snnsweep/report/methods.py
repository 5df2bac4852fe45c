"""The paragraph of methods that a paper needs, with every setting as `sweep.json` and the rows have it."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from snnsweep import __version__, registry
from snnsweep.config import DEFAULTS
from snnsweep.report.charts import Table
from snnsweep.report.confirmed import coverage, fits
from snnsweep.report.data import Swept
from snnsweep.results.words import number, value

USUAL = (  # keys that a paper names, also where they have their defaults
    "data.batch_size", "encoder.name", "encoder.time_steps", "neuron.name", "neuron.v_threshold", "neuron.reset",
    "neuron.surrogate", "neuron.alpha", "model.width", "model.residual", "model.norm", "model.pooling",
    "train.objective", "train.loss", "train.epochs", "train.optimizer", "train.lr", "train.schedule", "train.precision",
)  # fmt: skip
ELSEWHERE = ("data.name", "model.name", "model.depth", "seed", "device")  # which have sentences of their own


def methods(swept: Swept) -> str:
    """Sentences; "unknown" where neither the rows nor `sweep.json` say it."""
    return " ".join(_sentences(swept))


def _sentences(swept: Swept) -> Iterator[str]:
    facts, rows = swept.facts, swept.results
    version = facts.get("versions", {}).get("snnsweep") or "of unknown version"
    yield (
        f"Variants of {used(rows, 'model.name')}-{used(rows, 'model.depth')} on {used(rows, 'data.name')} were "
        f"trained, attacked and measured with snnsweep {version}."
    )
    if facts["smoke"]:
        yield "This was a smoke run of tiny trials: its figures mean nothing."
    yield (
        "Search used a stratified tenth of the official training images as validation split and the rest (or "
        "data.subset of it) for training; the test split was not touched by the search."
    )
    told = [key for key in DEFAULTS if key in USUAL or _unusual(rows, key)]
    settings = "; ".join(f"{key} {used(rows, key)}" for key in told)
    yield f"Settings (a range or a list where they varied; else the defaults of that version): {settings}."
    yield from _threat(rows)
    yield from _search(swept)
    yield (
        "Of the objectives, accuracies are shares of validation images; robust accuracy is the mean over samples of "
        "the worst case over the suite, clean errors included; brackets are 95 % intervals over samples (Wilson for "
        "shares)."
    )
    yield from _audit(swept)
    yield from _confirmation(swept)
    yield from _origin(swept)


def _unusual(rows: pd.DataFrame, key: str) -> bool:
    """Whether a key that no other sentence names has another value than by default."""
    if key in ELSEWHERE or key.startswith(("threat.", "attack.")):
        return False
    return any(one != DEFAULTS[key] for one in _values(rows, key))


def _threat(rows: pd.DataFrame) -> Iterator[str]:
    sizes = used(rows, "robust_accuracy/n")
    yield (
        f"Threat: norm {used(rows, 'threat.norm')}, eps {used(rows, 'threat.eps')} {_scale(rows)}, "
        f"perturbing the {used(rows, 'threat.space')} input; {sizes} attacked samples; suite "
        f"{used(rows, 'attack.suite')}."
    )
    for suite in _values(rows, "attack.suite"):
        if steps := suite_steps(str(suite)):
            yield f"Suite {suite} is {', '.join(f'{label} ({attack}, {rule})' for label, attack, rule in steps)}."
        else:
            yield f"Suite {suite} is the space's own, or not of this version of snnsweep: see the space's text."


def _scale(rows: pd.DataFrame) -> str:
    """What eps is measured in."""
    scales = {"pixel": "of the pixel range [0, 1]", "encoded": "in units of the encoded input"}
    return (
        " or ".join(scales.get(str(one), "of an unknown scale") for one in _values(rows, "threat.space")) or "unknown"
    )


def suite_steps(suite: str) -> list[tuple[str, str, str]]:
    """The label, attack with its budget and gradient rule of each step; [] for a suite that is not snnsweep's own."""
    known = registry.suites.names()
    if suite not in known or not registry.suites.get(suite).__module__.startswith("snnsweep."):
        return []
    steps = registry.suites.get(suite)().steps
    return [(f"then {s.label}" if s.cascaded else s.label, str(s.attack), f"rule {s.rule}") for s in steps]


def _search(swept: Swept) -> Iterator[str]:
    facts = swept.facts
    objectives = ", ".join(f"{name} ({way})" for name, way in swept.objectives.items())
    counts = ", ".join(f"{count} {status}" for status, count in swept.counts.items()) or "none"
    yield (
        f"Optuna's sampler {facts.get('sampler', 'unknown')} with seed {facts.get('seed', 'unknown')} chose the "
        f"variants for {objectives}; {len(swept.results)} of {facts.get('trials', 'unknown')} planned trials ended "
        f"({counts}), with trial seed {used(swept.results, 'seed')}."
    )
    rungs = facts.get("rungs")
    if rungs:
        said = ", ".join(f"{name} {given}" for name, given in rungs.items())
        yield f"Trials that fell behind were stopped by multi-objective ASHA ({said})."
    else:
        yield "No trial was stopped early for what it had measured."
    if facts.get("warm_start"):
        yield "The sampler learnt first from the trials of an earlier sweep."


def _audit(swept: Swept) -> Iterator[str]:
    if table := thresholds(swept):
        listed = "; ".join(f"{name} {limit}" for name, limit, _ in table.rows)
        yield f"An audit judged whether attacks failed for lack of a gradient, by these thresholds: {listed}."


def thresholds(swept: Swept) -> Table | None:
    """The audit's checks that ran, each with its threshold and source, as the rows name them."""
    found: dict[str, tuple[set[str], str]] = {}
    for checks in swept.results.get("audit_checks", pd.Series(dtype=object)):
        for check in [] if checks is None else checks:
            name, _, said = str(check).partition(": ")
            limit = said.partition(", threshold ")[2].partition(")")[0]
            if limit and said.endswith("]"):
                found.setdefault(name, (set(), said.rpartition("[")[2].rstrip("]")))[0].add(limit)
    rows = [(name, " or ".join(sorted(limits)), source) for name, (limits, source) in found.items()]
    return Table("The audit's checks", ("check", "threshold", "source"), rows) if rows else None


def _confirmation(swept: Swept) -> Iterator[str]:
    said = swept.confirmed
    if said is None:
        yield "The front was not confirmed with fresh seeds on the test split."
        return
    seeds = ", ".join(map(str, said["seeds"])) or "none (the stored models)"
    how = "was confirmed" if said["front_after"] is not None else "was to be confirmed, which has not ended,"
    yield (
        f"{'The front' if fits(swept) else 'Part of the front'} {how} on the {said['split']} split: "
        f"{coverage(swept)}; fresh seeds {seeds}, suite {said['suite']} on at most "
        f"{', '.join(map(str, said['samples']))} samples."
    )


def _origin(swept: Swept) -> Iterator[str]:
    facts = swept.facts
    versions = ", ".join(f"{name} {given}" for name, given in facts.get("versions", {}).items() if given)
    yield f"Versions: {versions or 'unknown'}. Hardware: {used(swept.results, 'hardware')}."
    command = shlex.join(facts["command"]) if facts.get("command") else "unknown"
    yield (
        f"Git commit {facts.get('git_commit') or 'unknown'}; space sha256 "
        f"{facts.get('space', {}).get('sha256', 'unknown')}; command: {command}."
    )


def caveats(swept: Swept) -> list[str]:
    """What the paragraph cannot know by itself."""
    then = swept.facts.get("versions", {}).get("snnsweep")
    said = []
    if then != __version__:
        said.append(
            f"The suites are told as snnsweep {__version__} has them; the sweep ran with "
            f"{then or 'an unknown version'}."
        )
    if resumed := swept.facts.get("resumed"):
        said.append(f"The sweep was resumed ({len(resumed)}); versions and command are those of its start.")
    return said


def _values(rows: pd.DataFrame, key: str) -> list[Any]:
    return list(dict.fromkeys(rows[key].dropna())) if key in rows else []


def used(rows: pd.DataFrame, key: str) -> str:
    """The value, the range, or the list of values that a column has."""
    found = _values(rows, key)
    if not found:
        return "none" if key in rows and len(rows) else "unknown"
    if len(found) == 1:
        return value(key, found[0])
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in found):
        return f"{_shown(key, min(found))} to {_shown(key, max(found))}"
    return _listed(value(key, one) for one in found)


def _shown(key: str, figure: Any) -> str:
    return value(key, figure) if key.endswith("eps") else number(figure)


def _listed(texts: Iterable[str]) -> str:
    shown: Sequence[str] = sorted(texts)
    return ", ".join(shown)
