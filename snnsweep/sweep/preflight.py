"""What has to hold before a sweep writes anything: every mistake found here is told at once."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from snnsweep import data, models, registry
from snnsweep.attacks import suites
from snnsweep.config import Flat, TrialConfig
from snnsweep.errors import SpaceError, UserError, nearest
from snnsweep.evaluation import device_of
from snnsweep.metrics import layers
from snnsweep.metrics.audit import ALWAYS
from snnsweep.result import (
    FAMILIES,
    OBJECTIVES,
    OF_SPIKES,
    PER_ATTACK,
    PER_CHECK,
    PER_LAYER,
    PER_LAYER_HOYER,
    PER_NEURON,
    PER_WEIGHT,
    PER_WEIGHT_ZEROS,
)
from snnsweep.results.folder import SWEEP
from snnsweep.sweep.lock import LOCK
from snnsweep.sweep.space import MODULE, Space
from snnsweep.sweep.study import STUDY_FILE

LONGEST_NAME = 120
PARTS = {
    "data.name": registry.datasets,
    "encoder.name": registry.encoders,
    "neuron.name": registry.neurons,
    "neuron.surrogate": registry.surrogates,
    "model.name": registry.models,
    "model.residual": registry.residuals,
    "model.norm": registry.norms,
    "train.loss": registry.losses,
    "train.objective": registry.trainers,
    "attack.suite": registry.suites,
}


def all_at_once(checks: Iterable[Callable[[], object]]) -> None:
    """Runs every check; raises one UserError with the text of all that failed."""
    mistakes: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))


def space_works(space: Space, seed: int, defaults: Flat, overrides: Flat, folder: Path) -> list[TrialConfig]:
    """Sampled variants of a space whose objectives, data sets and devices are there.

    Raises:
        UserError: all that is wrong.
    """
    found: list[TrialConfig] = []
    all_at_once(
        [lambda: space.objectives, lambda: space.rungs, lambda: found.extend(space.probe(seed, defaults, overrides))]
    )
    sets = {_files(config): config for config in found}
    all_at_once(
        [
            lambda: _objectives_exist(space, found, folder),
            lambda: _parts_travel(space, found),
            *(lambda config=config: data.load(config, device_of("cpu"), folder) for config in sets.values()),
        ]
    )
    return found


def known(option: str, given: str, allowed: Iterable[str]) -> None:
    """Raises:
    UserError: `given` is none of the `allowed`.
    """
    if given not in allowed:
        raise UserError(f"unknown {option} {given!r}; {nearest(given, allowed)}")


def at_least(given: Mapping[str, tuple[Any, float]]) -> None:
    """That options are as large as they have to be.

    Args:
        given: by option the value, None where it was not given, and the least that is allowed.

    Raises:
        UserError: all that are smaller.
    """
    wrong = [
        f"--{option} {value}: has to be at least {least}"
        for option, (value, least) in given.items()
        if isinstance(value, int | float) and not value >= least
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def device_is_free(space: Space, configs: list[TrialConfig]) -> None:
    """Raises:
    UserError: the space sets `device`, which a sweep's reservation decides.
    """
    if any(config.device != "auto" for config in configs):
        raise UserError(
            f"{space.source}: sets device; in a sweep --gpus-per-trial decides between cuda and cpu: drop it from the "
            "space"
        )


def folder_is_free(storage: Path, name: str, embedded: bool) -> None:
    """Raises:
    UserError: the sweep's folder exists, or cannot be made.
    """
    if not name or "/" in name or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
        raise UserError(f"--name {name!r}: a folder's name: no slash, no dot in front, {LONGEST_NAME} bytes at most")
    if embedded and set("?#%") & set(str(storage)):
        raise UserError(f"--storage {storage}: no ?, # or % in it, which the address of a sqlite file cannot hold")
    try:
        if sweeps := [place for place in (storage, *storage.parents) if (place / SWEEP).is_file()]:
            raise UserError(f"--storage {storage}: {sweeps[0]} is a sweep's own folder; give one that holds sweeps")
        if (storage / name).exists() and not _begun_by_halves(storage / name):
            raise UserError(_taken(storage / name))
        above = next(parent for parent in (storage, *storage.parents) if parent.exists())
    except OSError as error:
        raise UserError(f"--storage {storage}: {error.strerror}; give another --storage") from None
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--storage {storage}: {above} is not a folder that can be written to; give another --storage")


def make_folder(folder: Path) -> None:
    """Raises:
    UserError: another sweep took the name a moment ago, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not _begun_by_halves(folder):
            raise UserError(_taken(folder)) from None
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; give another --storage or --name") from None


def _begun_by_halves(folder: Path) -> bool:
    """Whether a sweep was killed there before it had asked for a trial."""
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {LOCK, STUDY_FILE, f"{STUDY_FILE}.lock"}


def _taken(folder: Path) -> str:
    return f"{folder}: a sweep of that name exists; take another --name, or go on with it: `snnsweep resume {folder}`"


def _files(config: TrialConfig) -> tuple[object, ...]:
    """What decides whether the files of a config's data set are there and fit it."""
    part, flat = registry.datasets.get(config.data.name), config.to_flat()
    keys = ["data.name", "data.subset"]
    if not hasattr(part, "spec"):  # only the files say what goes with them
        keys += [*getattr(part, "needs", ()), "encoder.name", "encoder.time_steps", "threat.space"]
    return tuple(flat[key] for key in keys)


def _objectives_exist(space: Space, configs: list[TrialConfig], folder: Path) -> None:
    """That each sampled variant reports every objective, and at its rungs what is compared there."""
    always = OBJECTIVES.keys() - OF_SPIKES
    at_rungs = space.rungs.metrics if space.rungs else {}
    asked = {"OBJECTIVES": space.objectives, "RUNGS: metrics": at_rungs}
    asked_for = {where: [name for name in names if name not in always] for where, names in asked.items()}
    rare = [name for names in asked_for.values() for name in names]
    of_layers = any(not name.startswith((PER_ATTACK, PER_CHECK)) for name in rare)
    for config in configs if rare else ():
        others = [f"{PER_CHECK}{check.__name__}" for check in ALWAYS]
        if of_layers:
            others += _layer_figures(models.build(config, data.spec(config, folder)))
        for where, names in asked_for.items():
            suite = space.rungs.suite if space.rungs and where != "OBJECTIVES" else config.attack.suite
            figures = [f"{PER_ATTACK}{name}" for name in attack_figures(suite)] + others
            if lost := [name for name in names if name not in figures]:
                family = next((prefix for prefix in FAMILIES if lost[0].startswith(prefix)), "")
                alike = [name for name in figures if name.startswith(family)]
                raise SpaceError(
                    f"{space.source}: {where}: {lost[0]!r} is not reported by every variant of this space; "
                    f"{nearest(lost[0], alike)}"
                )


def attack_figures(suite: str) -> list[str]:
    """What may follow `robust_accuracy/` in the names of that suite's metrics."""
    return [*(step.figure for step in suites.get(suite)().steps), "clean"]


def _layer_figures(model: models.SNN) -> list[str]:
    """The names of metrics that depend on the variant's layers."""
    found: dict[str, list[str]] = {}
    found[PER_LAYER] = found[PER_LAYER_HOYER] = list(layers.leaves(model))
    found[PER_WEIGHT] = found[PER_WEIGHT_ZEROS] = list(layers.weighted(model))
    found[PER_NEURON] = list(layers.neurons(model))
    named = [prefix + name for prefix, names in found.items() for name in names]
    return [*named, *(OF_SPIKES if found[PER_NEURON] else ())]


def _parts_travel(space: Space, configs: list[TrialConfig]) -> None:
    """That the workers will know each part: they execute this space, and nothing else of this process."""
    own = space.module.__name__
    for key, known_parts in PARTS.items():
        for name in {config.to_flat()[key] for config in configs}:
            home = known_parts.get(name).__module__
            if home == "__main__" or (home.startswith(MODULE) and home != own):
                raise SpaceError(
                    f"{space.source}: {key} {name!r} is registered in {home}, which the workers do not have; register "
                    "it in the space file"
                )
