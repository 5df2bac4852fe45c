"""From a data set's arrays to a trial's train, validation and test splits."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.data.sets import Arrays
from snnsweep.data.stratify import stratified
from snnsweep.errors import ConfigError, SnnSweepError, UserError
from snnsweep.registry import datasets


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels on one device: x uint8 [N, C, H, W], y int64 [N]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at `index` as float32 [n, C, H, W] in [0, 1]."""
        return self.x[index].float() / 255


@dataclass(frozen=True, eq=False)
class Data:
    """What a trial sees: three splits without a common image.

    `validation` is a tenth of the official training images, `train` the rest (or `data.subset` of it), `test` the
    official test images. Each is stratified to within one image per class and the same for every trial and seed.
    The classes are interleaved in proportion to their size, so that the first n images of a split (an attack
    takes the first `attack.samples`) hold every class in its share: with classes of one size, to within one image.
    """

    train: Split
    validation: Split
    test: Split


def default_folder() -> Path:
    """Where data sets are looked for: the environment variable SNNSWEEP_DATA, else `data` in the working directory."""
    return Path(os.environ.get("SNNSWEEP_DATA") or "data")


def load(config: TrialConfig, device: torch.device | str, folder: Path | None = None) -> Data:
    """The data set that `config.data` names.

    Files are read once per process; the splits are the caller's own.

    Args:
        folder: where the files lie; None for `default_folder()`.

    Raises:
        MissingData: the set is not there; the message holds the command that gets it.
        ConfigError: `data.subset` is larger than what the validation split leaves.
        UserError: a data set of the user's own does not keep the contract of `Arrays`.
        SnnSweepError: torchvision does not fit torch.
    """
    part = datasets.get(config.data.name)
    arrays = read(config.data.name, folder or default_folder())
    _check(config.data.name, part.spec, arrays)
    validation = stratified(arrays.train_y, max(1, round(len(arrays.train_y) / 10)))
    rest = np.setdiff1d(np.arange(len(arrays.train_y)), validation)
    subset = len(rest) if config.data.subset is None else config.data.subset
    if subset > len(rest):
        rule = f"{config.data.name} has {len(rest)} training images beside its validation split"
        raise ConfigError([f"data.subset: {rule}; given {subset}; allowed: 1 to {len(rest)}, or none for all"])

    def split(x: NDArray[np.uint8], y: NDArray[np.int64], index: NDArray[np.int64]) -> Split:
        return Split(torch.from_numpy(x[index]).to(device), torch.from_numpy(y[index]).to(device))

    return Data(
        train=split(arrays.train_x, arrays.train_y, rest[stratified(arrays.train_y[rest], subset)]),
        validation=split(arrays.train_x, arrays.train_y, validation),
        test=split(arrays.test_x, arrays.test_y, stratified(arrays.test_y, len(arrays.test_y))),
    )


def instance(part: Any) -> Any:
    return part() if isinstance(part, type) else part


@lru_cache(maxsize=2)  # by the part itself: a space file may register another one under the same name
def _read(part: Any, folder: Path) -> Arrays:
    return instance(part).read(folder)


def read(name: str, folder: Path) -> Arrays:
    """A data set's arrays; its files are read once per process.

    Raises:
        MissingData: it is not there.
        UserError: the `read` of the user's own set raised.
        SnnSweepError: torchvision does not fit torch.
    """
    try:
        return _read(datasets.get(name), folder.expanduser().resolve())
    except SnnSweepError:
        raise
    except Exception as error:
        raise UserError(f"data set {name!r}: its read() raised {type(error).__name__}: {error}") from error


def _check(name: str, spec: ImageSpec, arrays: Arrays) -> None:
    shape = (spec.channels, spec.height, spec.width)
    for split, x, y in (("train", arrays.train_x, arrays.train_y), ("test", arrays.test_x, arrays.test_y)):
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != shape:
            rule = f"has to be uint8 [N, {', '.join(map(str, shape))}], as its spec says"
            raise UserError(f"data set {name!r}: {split}_x {rule}; given {x.dtype} {list(x.shape)}")
        if y.dtype != np.int64 or y.shape != x.shape[:1] or len(y) < 2:
            rule = f"has to be int64 [{len(x)}], one label per image, and two images at least"
            raise UserError(f"data set {name!r}: {split}_y {rule}; given {y.dtype} {list(y.shape)}")
        if y.min() < 0 or y.max() >= spec.classes:
            rule = f"has to be in 0 .. {spec.classes - 1}, as its spec says"
            raise UserError(f"data set {name!r}: {split}_y {rule}; given {y.min()} .. {y.max()}")
