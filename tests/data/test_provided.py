"""Arrays that come from somewhere else than the files: whose they are, and that nobody writes into them."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsweep import data
from snnsweep.config import DataConfig, EncoderConfig, ImageSpec, TrialConfig
from snnsweep.data import Source
from snnsweep.errors import UserError


class Own:
    spec = ImageSpec(2, 3, 5, 4, mean=(0.5, 0.5), std=(0.5, 0.5))
    reads = 0

    def read(self, folder: Path) -> data.Arrays:
        type(self).reads += 1
        return arrays(0)


def arrays(seed: int) -> data.Arrays:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (60, 2, 3, 5), np.uint8), np.arange(60) % 4
    return data.Arrays(x[:40], y[:40], x[40:], y[40:])


@pytest.fixture
def own() -> Iterator[type[Own]]:
    part = type("Mine", (Own,), {"reads": 0})
    data.register("test_own")(part)
    yield part
    data.forget()


CONFIG = TrialConfig.model_construct(data=DataConfig.model_construct(name="test_own"))


def splits(folder: Path) -> list[torch.Tensor]:
    loaded = data.load(CONFIG, "cpu", folder)
    return [tensor for split in (loaded.train, loaded.validation, loaded.test) for tensor in (split.x, split.y)]


def test_what_is_provided_is_not_read(own: type[Own], tmp_path: Path):
    data.provide(Source("test_own"), tmp_path / "x" / "..", lambda: arrays(0))
    got = splits(tmp_path)
    assert own.reads == 0
    data.forget()
    assert all(torch.equal(*pair) for pair in zip(got, splits(tmp_path), strict=True))
    assert own.reads == 1


def test_each_load_fetches_anew(own: type[Own], tmp_path: Path):
    fetched: list[int] = []
    data.provide(Source("test_own"), tmp_path, lambda: fetched.append(1) or arrays(len(fetched)))
    first, second = splits(tmp_path), splits(tmp_path)
    assert len(fetched) == 2
    assert not torch.equal(first[0], second[0])


def test_another_folder_or_another_part_of_that_name_reads_its_own(own: type[Own], tmp_path: Path):
    data.provide(Source("test_own"), tmp_path, lambda: arrays(1))
    splits(tmp_path / "other")
    assert own.reads == 1
    again = type("Mine", (Own,), {"reads": 0})
    data.register("test_own")(again)
    splits(tmp_path)
    assert (own.reads, again.reads) == (1, 1)


def test_the_values_that_a_set_needs_tell_its_arrays_apart(tmp_path: Path):
    class Framed(Own):
        spec = replace(Own.spec, frames=True)
        needs = ("encoder.time_steps",)

        def read(self, folder: Path, time_steps: int) -> data.Arrays:
            return framed(0, time_steps)

    def framed(seed: int, steps: int) -> data.Arrays:
        plain = arrays(seed)
        train_x, test_x = (np.repeat(x[:, None], steps, 1) for x in (plain.train_x, plain.test_x))
        return replace(plain, train_x=train_x, test_x=test_x)

    data.register("test_framed")(Framed)
    configs = [
        TrialConfig(data=DataConfig(name="test_framed"), encoder=EncoderConfig(name="frames", time_steps=steps))
        for steps in (2, 3)
    ]
    assert [data.source(config) for config in configs] == [
        Source("test_framed", (("time_steps", 2),)),
        Source("test_framed", (("time_steps", 3),)),
    ]
    data.provide(data.source(configs[0]), tmp_path, lambda: framed(1, 2))
    two, three = (data.load(config, "cpu", tmp_path) for config in configs)
    data.forget()
    assert (two.test.x.shape[1], three.test.x.shape[1]) == (2, 3)
    assert not torch.equal(two.test.x[:, 0], three.test.x[:, 0])
    assert torch.equal(data.load(configs[1], "cpu", tmp_path).test.x, three.test.x)


def test_an_unknown_key_that_a_set_needs():
    data.register("test_needs")(type("Needs", (Own,), {"needs": ("encoder.time_step",)}))
    with pytest.raises(UserError, match=r"needs the unknown key 'encoder.time_step'; did you mean encoder.time_steps"):
        data.source(TrialConfig.model_construct(data=DataConfig(name="test_needs")))


def test_what_fetching_raises_is_not_the_data_sets_mistake(own: type[Own], tmp_path: Path):
    def lost() -> data.Arrays:
        raise ConnectionError("the node is gone")

    data.provide(Source("test_own"), tmp_path, lost)
    with pytest.raises(ConnectionError, match="gone"):
        splits(tmp_path)


def test_splits_of_read_only_arrays_warn_of_nothing_and_are_the_callers_own(own: type[Own], tmp_path: Path):
    shared = arrays(0)
    for part in (shared.train_x, shared.train_y, shared.test_x, shared.test_y):
        part.flags.writeable = False
    data.provide(Source("test_own"), tmp_path, lambda: shared)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tensor in splits(tmp_path):
            tensor.zero_()
    assert all(np.array_equal(value, vars(arrays(0))[name]) for name, value in vars(shared).items() if name != "spec")


def test_splits_have_one_layout_whatever_that_of_the_arrays(own: type[Own], tmp_path: Path):
    plain = arrays(0)
    turned = plain.train_x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # channels last in memory
    data.provide(Source("test_own"), tmp_path, lambda: replace(plain, train_x=turned))
    got = splits(tmp_path)
    assert all(tensor.is_contiguous() for tensor in got)
    data.forget()
    assert all(torch.equal(*pair) for pair in zip(got, splits(tmp_path), strict=True))
