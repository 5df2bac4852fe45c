"""From a data set's arrays to a trial's train, validation and test splits."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.data.sets import Arrays
from snnsweep.data.stratify import stratified
from snnsweep.errors import ConfigError, SnnSweepError, UserError, nearest
from snnsweep.registry import datasets


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels on one device: x uint8 [N, C, H, W], of event data [N, T, C, H, W]; y int64 [N]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The samples at `index` as float32 [n, C, H, W], of event data [n, T, C, H, W], in [0, 1]."""
        return self.x[index].float() / 255


@dataclass(frozen=True, eq=False)
class Data:
    """What a trial sees: what the images are, and three splits without a common image.

    `validation` is a tenth of the official training images, `train` the rest (or `data.subset` of it), `test` the
    official test images. Each is stratified to within one image per class and the same for every trial and seed.
    The classes are interleaved in proportion to their size, so that the first n images of a split (an attack
    takes the first `attack.samples`) hold every class in its share: with classes of one size, to within one image.
    """

    train: Split
    validation: Split
    test: Split
    spec: ImageSpec


def default_folder() -> Path:
    """Where data sets are looked for: the environment variable SNNSWEEP_DATA, else `data` in the working directory."""
    return Path(os.environ.get("SNNSWEEP_DATA") or "data")


def load(config: TrialConfig, device: torch.device | str, folder: Path | None = None) -> Data:
    """The data set that `config.data` names.

    Files are read once per process, or not at all where `provide` knows better; the splits are the caller's own.

    Args:
        folder: where the files lie; None for `default_folder()`.

    Raises:
        MissingData: the set is not there; the message holds the command that gets it, or the address and the layout.
        ConfigError: `data.subset` is larger than what the validation split leaves, or the images, known only now, do
            not go with the rest of the config.
        UserError: a data set of the user's own does not keep the contract of `Arrays`.
        SnnSweepError: torchvision does not fit torch.
    """
    arrays = _arrays(config, folder)
    spec = _spec(config.data.name, arrays)
    _check(config.data.name, spec, arrays)
    validation = stratified(arrays.train_y, max(1, round(len(arrays.train_y) / 10)))
    rest = np.setdiff1d(np.arange(len(arrays.train_y)), validation)
    subset = len(rest) if config.data.subset is None else config.data.subset
    problems = config.misfits(spec)
    if subset > len(rest):
        rule = f"{config.data.name} has {len(rest)} training images beside its validation split"
        problems.append(f"data.subset: {rule}; given {subset}; allowed: 1 to {len(rest)}, or none for all")
    if spec.frames and (steps := arrays.train_x.shape[1]) != config.encoder.time_steps:
        rule = f"a sample of {config.data.name} has {steps} frames"
        problems.append(f"encoder.time_steps: {rule}; given {config.encoder.time_steps}; allowed: {steps}")
    if problems:
        raise ConfigError(problems)

    def split(x: NDArray[np.uint8], y: NDArray[np.int64], index: NDArray[np.int64]) -> Split:
        chosen = np.ascontiguousarray(x[index])  # kernels, and with them the last bits, depend on the layout
        return Split(torch.from_numpy(chosen).to(device), torch.from_numpy(y[index]).to(device))

    return Data(
        train=split(arrays.train_x, arrays.train_y, rest[stratified(arrays.train_y[rest], subset)]),
        validation=split(arrays.train_x, arrays.train_y, validation),
        test=split(arrays.test_x, arrays.test_y, stratified(arrays.test_y, len(arrays.test_y))),
        spec=spec,
    )


def spec(config: TrialConfig, folder: Path | None = None) -> ImageSpec:
    """What the images of `config.data` are; files are read only where they alone say it.

    Raises:
        MissingData, UserError, SnnSweepError: as in `load`.
    """
    static: ImageSpec | None = getattr(datasets.get(config.data.name), "spec", None)
    return static or _spec(config.data.name, _arrays(config, folder))


def present(name: str, folder: Path) -> str:
    """In a few words, what of a data set is in `folder`; recordings of events are counted, not read.

    Raises:
        MissingData: it is not there.
        UserError, SnnSweepError: as in `load`.
    """
    part = instance(datasets.get(name))
    if hasattr(part, "present"):
        return str(part.present(folder.expanduser()))
    if needs := getattr(part, "needs", ()):
        return f"not looked at: it depends on {' and '.join(needs)}"
    read(name, folder)
    return "there"


def instance(part: Any) -> Any:
    return part() if isinstance(part, type) else part


class Source(NamedTuple):
    """What decides a data set's arrays, beside the folder: its name, and the values of the keys that it needs."""

    name: str
    given: tuple[tuple[str, Any], ...] = ()


def source(config: TrialConfig) -> Source:
    """Where the arrays of `config` come from.

    Raises:
        UserError: the set needs a key that there is not.
    """
    name, flat = config.data.name, config.to_flat()
    needs = getattr(datasets.get(name), "needs", ())
    if unknown := [key for key in needs if key not in flat]:
        raise UserError(f"data set {name!r} needs the unknown key {unknown[0]!r}; {nearest(unknown[0], flat)}")
    return Source(name, tuple(sorted((key.rpartition(".")[2], flat[key]) for key in needs)))


_provided: dict[tuple[Any, Path, tuple[tuple[str, Any], ...]], Callable[[], Arrays]] = {}


def provide(source: Source, folder: Path, fetch: Callable[[], Arrays]) -> None:
    """Takes arrays from `fetch()`, each time anew, where they would be read from `folder`.

    This holds for the part that has the name now: one that is registered under it later reads its own files.
    """
    _provided[datasets.get(source.name), _place(folder), source.given] = fetch


def forget() -> None:
    """Drops the arrays that this process keeps, and what was provided."""
    _read.cache_clear()
    _provided.clear()


def _place(folder: Path) -> Path:
    return folder.expanduser().resolve()


@lru_cache(maxsize=2)  # by the part itself: a space file may register another one under the same name
def _read(part: Any, folder: Path, **given: Any) -> Arrays:
    return instance(part).read(folder, **given)


def read(name: str, folder: Path, **given: Any) -> Arrays:
    """A data set's arrays; its files are read once per process and `given`, unless they are provided.

    Args:
        given: the values of the keys that the set needs, by the last part of the key (`time_steps=4`).

    Raises:
        MissingData: it is not there.
        UserError: the `read` of the user's own set raised.
        SnnSweepError: torchvision does not fit torch.
    """
    try:
        part, place = datasets.get(name), _place(folder)
        fetch = _provided.get((part, place, tuple(sorted(given.items()))))
        if fetch is None:
            return _read(part, place, **given)
    except SnnSweepError:
        raise
    except Exception as error:
        raise UserError(f"data set {name!r}: its read() raised {type(error).__name__}: {error}") from error
    return fetch()


def _arrays(config: TrialConfig, folder: Path | None) -> Arrays:
    name, given = source(config)
    return read(name, Path(folder or default_folder()), **dict(given))


def _spec(name: str, arrays: Arrays) -> ImageSpec:
    spec = getattr(datasets.get(name), "spec", None) or arrays.spec
    if spec is None:
        raise UserError(f"data set {name!r} has no spec: give its class one, or return one in Arrays.spec")
    return spec


def _check(name: str, spec: ImageSpec, arrays: Arrays) -> None:
    shape = (spec.channels, spec.height, spec.width)
    wanted = ", ".join(["N", *(["T"] if spec.frames else []), *map(str, shape)])
    for split, x, y in (("train", arrays.train_x, arrays.train_y), ("test", arrays.test_x, arrays.test_y)):
        if x.dtype != np.uint8 or x.ndim != 4 + spec.frames or x.shape[-3:] != shape:
            rule = f"has to be uint8 [{wanted}], as its spec says"
            raise UserError(f"data set {name!r}: {split}_x {rule}; given {x.dtype} {list(x.shape)}")
        if spec.frames and x.shape[1] != arrays.train_x.shape[1]:
            rule = f"has to have as many frames a sample as train_x, {arrays.train_x.shape[1]}"
            raise UserError(f"data set {name!r}: {split}_x {rule}; given {x.shape[1]}")
        if y.dtype != np.int64 or y.shape != x.shape[:1] or len(y) < 2:
            rule = f"has to be int64 [{len(x)}], one label per image, and two images at least"
            raise UserError(f"data set {name!r}: {split}_y {rule}; given {y.dtype} {list(y.shape)}")
        if y.min() < 0 or y.max() >= spec.classes:
            rule = f"has to be in 0 .. {spec.classes - 1}, as its spec says"
            raise UserError(f"data set {name!r}: {split}_y {rule}; given {y.min()} .. {y.max()}")
