"""What was asked before, under the space as it is now: whether a study still fits, and another sweep's trials."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from snnsweep.config import Flat
from snnsweep.errors import SpaceError, UserError
from snnsweep.results import store
from snnsweep.sweep.space import PROBES, Space
from snnsweep.sweep.study import CONSTRAINT, WARM, objectives_of, own, read_study

Asked = Mapping[str, tuple[BaseDistribution, ...]]


def compatible(study: optuna.Study, space: Space, defaults: Flat, overrides: Flat, seed: int) -> None:
    """Whether a study can go on under a space: draws some variants, as `Space.probe` does.

    Optuna refuses another kind of distribution, another `log`, and other choices; bounds and steps may change, as far
    as the trials that are still running, or chosen and not begun, lie within.

    Raises:
        SpaceError: every parameter that does not fit, with what it was and what it is now.
    """
    trials = study.get_trials(deepcopy=False)
    clashes = _clashes(_asked(trials), _probed(space, defaults, overrides, seed))
    problems = list(clashes.values())
    for trial in trials:
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            problems += _outside(trial, space, defaults, overrides, clashes)
    if problems:
        raise SpaceError(
            f"{space.source}: does not fit the study {study.study_name!r}\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nput the space back as it was, or begin a new sweep"
        )


def warm(study: optuna.Study, folder: Path, space: Space, defaults: Flat, overrides: Flat, seed: int) -> int:
    """Lets a study's sampler learn from the told trials of another sweep. A second call adds nothing.

    They get numbers before the sweep's own, which begin at `len(study.trials)` after this, and are not of its trials
    (`study.own`). A trial with a value outside of the space's bounds stays behind.

    Args:
        study: of a sweep that has not begun.
        folder: the other sweep's.

    Returns:
        How many were added now.

    Raises:
        UserError: the sweep or its study is not there, has other objectives, parameters that clash with the space's,
            or no trial that lies in it; or this study's sampler would not learn from them.
    """
    if not isinstance(study.sampler, TPESampler | GPSampler):
        raise UserError("a warm start needs --sampler tpe or gp: no other learns from trials that it did not ask for")
    facts = store.load_sweep(folder)
    url = facts.get("optuna_storage")
    if url and "***" in url:
        raise UserError(f"a warm start from {folder}: its study is at {url}, whose password is kept nowhere")
    other = read_study(folder, facts["name"], url)
    theirs, mine = objectives_of(other), objectives_of(study)
    if theirs != mine:
        raise UserError(f"a warm start needs a sweep with the same objectives\n  {folder}: {theirs}\n  space: {mine}")
    told = [trial for trial in own(other) if trial.state == TrialState.COMPLETE]
    now = _probed(space, defaults, overrides, seed)
    if clashes := _clashes(_asked(told), now):
        listed = "\n".join(f"  {clash}" for clash in clashes.values())
        raise UserError(f"a warm start from {folder} does not fit {space.source}\n{listed}")
    fitting = [(trial, moved) for trial in told if (moved := _moved(trial, now)) is not None]
    if not fitting:
        raise UserError(f"a warm start from {folder}: none of its {len(told)} told trials lies in {space.source}")
    known = {trial.user_attrs.get(WARM) for trial in study.get_trials(deepcopy=False)}
    added = 0
    for trial, moved in fitting:
        origin = f"{folder.resolve()} t{trial.number:04d}"
        if origin not in known:
            values = dict(zip(theirs, trial.values, strict=True))
            study.add_trial(_copy(trial, moved, [values[name] for name in mine], origin))
            added += 1
    return added


def _copy(
    trial: FrozenTrial, distributions: dict[str, BaseDistribution], values: list[float], origin: str
) -> FrozenTrial:
    return optuna.trial.create_trial(
        params=trial.params,
        distributions=distributions,
        values=values,
        user_attrs=trial.user_attrs | {WARM: origin},
        constraints={CONSTRAINT: max(trial.constraints.values(), default=0.0)},
    )


def _moved(trial: FrozenTrial, now: Asked) -> dict[str, BaseDistribution] | None:
    """The trial's parameters with the space's distributions: a Gaussian process leaves out a parameter with two."""
    moved = dict(trial.distributions)
    for key, value in trial.params.items():
        if len(now.get(key, ())) == 1:
            moved[key] = now[key][0]
            if not _holds(moved[key], value):
                return None
    return moved


def _probed(space: Space, defaults: Flat, overrides: Flat, seed: int) -> Asked:
    scratch = optuna.create_study(sampler=RandomSampler(seed=seed))
    for _ in range(PROBES):
        try:
            space.sample(scratch.ask(), defaults, overrides)
        except SpaceError:  # told before, by `Space.probe`
            continue
    return _asked(scratch.get_trials(deepcopy=False))


def _asked(trials: Iterable[FrozenTrial]) -> Asked:
    found: dict[str, dict[BaseDistribution, None]] = {}
    for trial in trials:
        for key, distribution in trial.distributions.items():
            found.setdefault(key, {})[distribution] = None
    return {key: tuple(distributions) for key, distributions in found.items()}


def _clashes(then: Asked, now: Asked) -> dict[str, str]:
    """For each parameter that cannot have both: what it was and what it is."""
    clashes = {}
    for key in then.keys() & now.keys():
        for old in then[key]:
            for new in now[key]:
                try:
                    check_distribution_compatibility(old, new)
                except ValueError:
                    clashes[key] = f"{key}: was {_words(old)}; now {_words(new)}"
    return dict(sorted(clashes.items()))


def _outside(
    trial: FrozenTrial, space: Space, defaults: Flat, overrides: Flat, told: Mapping[str, str]
) -> Iterable[str]:
    """What of an open trial's parameters the space would not give any more; those in `told` are left out."""
    scratch = optuna.create_study(sampler=RandomSampler(seed=0))
    scratch.enqueue_trial({key: value for key, value in trial.params.items() if key not in told})
    asked, whole = scratch.ask(), True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's own about a value that is out of range
        try:
            space.sample(asked, defaults, overrides)
        except SpaceError:
            whole = False
    for key, value in trial.params.items():
        state = "is running" if trial.state == TrialState.RUNNING else "was chosen and waits"
        given = f"{key}: is {value!r} in t{trial.number:04d}, which {state}; now"
        if key in told:
            continue
        if key not in asked.distributions:
            if whole:
                yield f"{given} the space does not ask for it"
        elif not _holds(asked.distributions[key], value):
            yield f"{given} {_words(asked.distributions[key])}"


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # none of the choices
        return False


def _words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {', '.join(map(repr, distribution.choices))}"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = "a float" if isinstance(distribution, FloatDistribution) else "an int"
    step = f", step {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{kind} from {distribution.low:g} to {distribution.high:g}{step}{', log' if distribution.log else ''}"
