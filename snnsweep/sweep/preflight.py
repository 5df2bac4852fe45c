"""What has to hold before a sweep writes anything: every mistake found here is told at once."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from snnsweep import data, models, registry
from snnsweep.attacks import suites
from snnsweep.config import Flat, TrialConfig
from snnsweep.errors import SpaceError, UserError, nearest
from snnsweep.evaluation import device_of
from snnsweep.result import PER_ATTACK, PER_LAYER
from snnsweep.sweep.space import MODULE, Space

LONGEST_NAME = 120
PARTS = {
    "data.name": registry.datasets,
    "encoder.name": registry.encoders,
    "neuron.name": registry.neurons,
    "neuron.surrogate": registry.surrogates,
    "model.name": registry.models,
    "model.residual": registry.residuals,
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
    all_at_once([lambda: space.objectives, lambda: found.extend(space.probe(seed, defaults, overrides))])
    sets = {(config.data.name, config.data.subset): config for config in found}
    all_at_once(
        [
            lambda: _objectives_exist(space, found),
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
        if (storage / name).exists():
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
        raise UserError(_taken(folder)) from None
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; give another --storage or --name") from None


def _taken(folder: Path) -> str:
    return f"{folder}: a sweep of that name exists; take another --name, or look at it with `snnsweep front {folder}`"


def _objectives_exist(space: Space, configs: list[TrialConfig]) -> None:
    """That each sampled variant reports every objective."""
    for objective in space.objectives:
        for prefix, names_of in ((PER_ATTACK, _attack_figures), (PER_LAYER, _layers)):
            if not objective.startswith(prefix):
                continue
            for config in configs:
                names = names_of(config)
                if objective.removeprefix(prefix) not in names:
                    raise SpaceError(
                        f"{space.source}: OBJECTIVES: {objective!r} is not reported by every variant of this space; "
                        f"{nearest(objective, [prefix + name for name in names])}"
                    )


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


def _attack_figures(config: TrialConfig) -> list[str]:
    suite = suites.get(config.attack.suite)()
    return [*(step.label for step in suite.steps), "clean"]


def _layers(config: TrialConfig) -> list[str]:
    network = models.build(config).network
    return [name for name, module in network.named_modules() if next(module.children(), None) is None]
