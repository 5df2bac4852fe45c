"""Data sets by name, as uint8 tensors that live whole on the trial's device: no worker processes, no PIL.

A data set is a class with `spec: ImageSpec` and `read(folder) -> Arrays`, registered under its name:

    @datasets.register("mine")
    class Mine: ...

`python -m snnsweep.data NAME --data-dir FOLDER` downloads one that is built in.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from typing import Any, ClassVar

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snnsweep import registry
from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.errors import ConfigError, MissingData, SnnSweepError, UserError

# As `python -m` this module is called __main__; the registry, importing its home, has to meet this one, not a copy.
sys.modules.setdefault("snnsweep.data", sys.modules[__name__])
register, get, names = registry.datasets.register, registry.datasets.get, registry.datasets.names

SPLIT_SEED = 0  # never the trial's: all trials train, validate and test on the same images


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set as its publisher split it: x uint8 [N, C, H, W], y int64 [N] in [0, classes)."""

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]


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
    part = get(config.data.name)
    arrays = _read(part, (folder or default_folder()).expanduser().resolve())
    _check(config.data.name, part.spec, arrays)
    validation = _stratified(arrays.train_y, max(1, round(len(arrays.train_y) / 10)))
    rest = np.setdiff1d(np.arange(len(arrays.train_y)), validation)
    subset = len(rest) if config.data.subset is None else config.data.subset
    if subset > len(rest):
        rule = f"{config.data.name} has {len(rest)} training images beside its validation split"
        raise ConfigError([f"data.subset: {rule}; given {subset}; allowed: 1 to {len(rest)}, or none for all"])

    def split(x: NDArray[np.uint8], y: NDArray[np.int64], index: NDArray[np.int64]) -> Split:
        return Split(torch.from_numpy(x[index]).to(device), torch.from_numpy(y[index]).to(device))

    return Data(
        train=split(arrays.train_x, arrays.train_y, rest[_stratified(arrays.train_y[rest], subset)]),
        validation=split(arrays.train_x, arrays.train_y, validation),
        test=split(arrays.test_x, arrays.test_y, _stratified(arrays.test_y, len(arrays.test_y))),
    )


def batches(split: Split, batch_size: int, rng: torch.Generator, augment: str) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order; augmentation runs on the split's device, a batch at a time.

    A last batch of a single image is left out (batch normalisation over one 1x1 map has no variance), unless
    it is the only one or `batch_size` is 1.

    Args:
        rng: a generator on the CPU whatever the split's device, so that every device sees the same images.
        augment: `none`, `flip` (horizontally, with probability 1/2), `crop` (see `crop`) or `flip+crop`.

    Yields:
        x float32 [n, C, H, W] in [0, 1] and y int64 [n].
    """
    count, (height, width), device = len(split), split.x.shape[-2:], split.x.device
    order = torch.randperm(count, generator=rng).to(device)
    mirrored = (torch.rand(count, generator=rng) < 0.5).to(device)
    top, left = (torch.randint(2 * (side // 8) + 1, (count,), generator=rng).to(device) for side in (height, width))
    single = count > 1 and count % batch_size == 1
    for start in range(0, count - single, batch_size):
        index = order[start : start + batch_size]
        x = split.x[index]
        if "flip" in augment:
            x = flip(x, mirrored[index])
        if "crop" in augment:
            x = crop(x, top[index], left[index])
        yield x.float() / 255, split.y[index]


def flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """x [N, C, H, W] with the images where `mirrored` [N] is true turned left to right."""
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)


def crop(x: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Pad-and-crop: zeros of side // 8 pixels around each image (4 for 32x32), cut back to the old size.

    Args:
        x: [N, C, H, W].
        top, left: int64 [N], where each window begins, in 0 .. 2 (side // 8); side // 8 is the unmoved image.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, [width // 8, width // 8, height // 8, height // 8])
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


@register("digits")
class Digits:
    """1,797 handwritten digits, 8x8, grey; comes with scikit-learn."""

    spec = ImageSpec(1, 8, 8, 10, mean=(0.3058,), std=(0.3762,))

    def read(self, folder: Path) -> Arrays:
        """A fixed fifth of them is the test set; the grey levels 0 .. 16 become 0 .. 255. `folder` is not used."""
        from sklearn.datasets import load_digits  # takes a second that no other data set has to pay

        source = load_digits()
        x = np.rint(source.images[:, None] * (255 / 16)).astype(np.uint8)
        y = source.target.astype(np.int64)
        test = np.sort(_stratified(y, round(len(y) / 5)))
        train = np.setdiff1d(np.arange(len(y)), test)
        return Arrays(x[train], y[train], x[test], y[test])


class _FromTorchvision:
    """A data set that torchvision downloads, checks and parses; its class there has the same name."""

    name: ClassVar[str]

    def read(self, folder: Path) -> Arrays:
        try:
            return Arrays(*self._open(folder, train=True), *self._open(folder, train=False))
        except (RuntimeError, OSError, ValueError, AssertionError) as error:
            command = f"python -m snnsweep.data {self.name} --data-dir {shlex.quote(str(folder))}"
            raise MissingData(f"{self.name} is not in {folder} or damaged there; get it with `{command}`") from error

    def download(self, folder: Path) -> None:
        try:
            self._open(folder, train=True, download=True)
        except (OSError, RuntimeError, ValueError, EOFError, HTTPException, TarError) as error:
            reason = " ".join(str(error).split())
            raise SnnSweepError(f"could not download {self.name} into {folder}: {reason}") from error

    def _open(self, folder: Path, train: bool, download: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        part = getattr(_torchvision(), type(self).__name__)(folder, train=train, download=download)
        x = np.asarray(part.data)
        x = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x), np.asarray(part.targets, dtype=np.int64)


@register("cifar10")
class CIFAR10(_FromTorchvision):
    """CIFAR-10 (Krizhevsky, 2009): 60,000 photographs, 32x32, colour, 10 classes."""

    name = "cifar10"
    spec = ImageSpec(3, 32, 32, 10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


@register("cifar100")
class CIFAR100(_FromTorchvision):
    """CIFAR-100 (Krizhevsky, 2009): 60,000 photographs, 32x32, colour, 100 classes."""

    name = "cifar100"
    spec = ImageSpec(3, 32, 32, 100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))


@register("mnist")
class MNIST(_FromTorchvision):
    """MNIST (LeCun et al., 1998): 70,000 handwritten digits, 28x28, grey."""

    name = "mnist"
    spec = ImageSpec(1, 28, 28, 10, mean=(0.1307,), std=(0.3081,))


@register("fashion_mnist")
class FashionMNIST(_FromTorchvision):
    """Fashion-MNIST (Xiao et al., 2017): 70,000 pieces of clothing, 28x28, grey, 10 classes."""

    name = "fashion_mnist"
    spec = ImageSpec(1, 28, 28, 10, mean=(0.2860,), std=(0.3530,))


def _torchvision() -> Any:
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        rule = "torch and torchvision have to be of one release (`snnsweep doctor` says what is installed)"
        raise SnnSweepError(f"torchvision cannot be imported: {error}; {rule}") from error
    return torchvision.datasets


def _instance(part: Any) -> Any:
    return part() if isinstance(part, type) else part


@lru_cache(maxsize=2)  # by the part itself: a space file may register another one under the same name
def _read(part: Any, folder: Path) -> Arrays:
    return _instance(part).read(folder)


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


def _interleaved(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """All indices in a fixed random order in which every class is spread evenly from the first to the last."""
    shuffled = np.random.RandomState(SPLIT_SEED).permutation(len(y))  # numpy froze this stream; default_rng's may move
    place = np.empty(len(y))
    for label in np.unique(y):
        members = shuffled[y[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _stratified(y: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` indices, interleaved, each class in its share to within one (largest remainder)."""
    labels, sizes = np.unique(y, return_counts=True)
    take, remainder = np.divmod(count * sizes, len(y))
    take[np.argsort(-remainder, kind="stable")[: count - take.sum()]] += 1
    order = _interleaved(y)
    chosen = np.zeros(len(y), dtype=bool)
    for label, number in zip(labels, take, strict=True):
        chosen[order[y[order] == label][:number]] = True
    return order[chosen[order]]


@click.command()
@click.argument("name")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_folder,
    help="Where it goes; by default $SNNSWEEP_DATA, else ./data.",
)
def main(name: str, data_dir: Path) -> None:
    """Download the data set NAME."""
    try:
        download = getattr(_instance(get(name)), "download", None)
        if download is None:
            click.echo(f"nothing to download: {registry.datasets.about(name)}")
        else:
            download(data_dir)
            click.echo(f"{name} is in {data_dir}")
    except SnnSweepError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
