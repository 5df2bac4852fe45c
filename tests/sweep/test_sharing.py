"""Data sets through the object store, on two Ray nodes with a store each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from snnsweep import data, evaluate
from snnsweep.config import DataConfig, TrialConfig
from snnsweep.errors import MissingData, SnnSweepError
from snnsweep.sweep import nodes, sharing
from snnsweep.sweep.space import Space

TEXT = '''
"""Who reads?"""
import os
import numpy as np
from pathlib import Path
from snnsweep import data
from snnsweep.config import ImageSpec

class Noted:
    """Stripes; each reading leaves a note."""
    spec = ImageSpec(1, 8, 8, 2, mean=(0.5,), std=(0.3,))

    def read(self, folder):
        (Path(folder) / f"{self.name}-{os.getpid()}").touch(exist_ok=False)
        rng = np.random.default_rng(0)
        y = np.arange(20_000) % 2
        x = rng.integers(0, 200, (20_000, 1, 8, 8), np.uint8)
        x[y == 1, :, ::2] += 50
        return data.Arrays(x[:19_000], y[:19_000], x[19_000:], y[19_000:])

@data.register("noted")
class One(Noted):
    name = "noted"

@data.register("rare")
class Rare(Noted):
    name = "rare"

FIXED = {
    "data.name": "noted", "model.depth": 10, "model.width": 0.125, "train.epochs": 1, "data.subset": 64,
    "encoder.time_steps": 2, "attack.samples": 8, "attack.suite": "trail",
}
def space(trial): return FIXED
'''


@pytest.fixture(scope="module")
def space() -> Space:
    return Space("sharing_space.py", TEXT)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    both = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    both.add_node(num_cpus=1)
    ray.init(both.address, log_to_driver=False)
    yield
    data.forget()
    ray.shutdown()
    both.shutdown()


def on_each_node(task: Any, *arguments: Any) -> list[Any]:
    here = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes.alive()]
    remote = ray.remote(task)
    return ray.get([remote.options(scheduling_strategy=node).remote(*arguments) for node in here], timeout=120)


@pytest.mark.slow
def test_read_once_seen_everywhere_and_equal_to_the_last_bit(space: Space, tmp_path: Path) -> None:
    config = space.probe(0, {}, {}, 1)[0]
    alone = tmp_path / "alone"
    alone.mkdir()
    mine = evaluate(config, alone)
    data.forget()
    notes, flat = tmp_path / "data", config.to_flat()
    notes.mkdir()
    data.load(config, "cpu", notes)  # as the checks before a sweep do
    shared = sharing.arrays_of([config, config], notes)

    def trial(space: Space, shared: sharing.Shared, flat: dict[str, Any]) -> dict[str, Any]:
        space.load()
        sharing.install(shared, notes)
        config = TrialConfig.from_flat(flat)
        own = data.read("noted", notes)
        result = evaluate(config, notes)
        seen = [own.train_x, own.train_y, own.test_x, own.test_y]
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "views": [not part.flags.owndata and not part.flags.writeable for part in seen],
            "metrics": result.metrics,
            "history": result.history,
        }

    ended = on_each_node(trial, space, shared, flat)
    assert [note.name for note in notes.iterdir()] == [f"noted-{os.getpid()}"]
    assert len({one["node"] for one in ended}) == 2
    for one in ended:
        assert one["views"] == [True] * 4
        for theirs, ours in ((one["metrics"], mine.metrics), (one["history"][0], mine.history[0])):
            assert theirs.keys() == ours.keys()
            assert all(ours[name] == value for name, value in theirs.items() if not name.startswith("time/"))


def test_a_set_that_was_not_shared_is_read_where_it_is_needed(space: Space, tmp_path: Path) -> None:
    config = space.probe(0, {}, {}, 1)[0]
    shared = sharing.arrays_of([config], tmp_path)

    def rare(space: Space, shared: sharing.Shared) -> int:
        space.load()
        sharing.install(shared, tmp_path)
        data.read("rare", tmp_path)
        return os.getpid()

    pids = on_each_node(rare, space, shared)
    assert {note.name for note in tmp_path.iterdir()} == {f"noted-{os.getpid()}", *(f"rare-{pid}" for pid in pids)}


def test_the_driver_keeps_no_copy_and_makes_arrays_that_can_be_viewed(tmp_path: Path) -> None:
    class Turned:
        spec = data.get("digits").spec

        def read(self, folder: Path) -> data.Arrays:
            held = data.get("digits")().read(folder)
            x = np.repeat(held.train_x, 2, 2)[:, :, ::2]
            assert not x.flags.c_contiguous
            return data.Arrays(x, held.train_y, held.test_x, held.test_y)

    data.register("turned")(Turned)
    shared = sharing.arrays_of([TrialConfig(data=DataConfig(name="turned"))], tmp_path)
    (reference,) = shared.values()
    got = ray.get(reference)
    assert got.train_x.flags.c_contiguous
    assert not got.train_x.flags.owndata
    assert np.array_equal(got.train_x, Turned().read(tmp_path).train_x)
    assert data.splits._read.cache_info().currsize == 0


def test_references_reach_a_trainable_as_references(tmp_path: Path, space: Space) -> None:
    shared = sharing.arrays_of([space.probe(0, {}, {}, 1)[0]], tmp_path)

    class Looks(tune.Trainable):
        def setup(self, config: dict[str, Any], shared: sharing.Shared) -> None:
            self.kinds = [(source.name, type(value).__name__) for source, value in shared.items()]

        def step(self) -> dict[str, Any]:
            return {"kinds": self.kinds}

    actor = ray.remote(num_cpus=0)(tune.with_parameters(Looks, shared=shared)).remote({})
    assert ray.get(actor.train.remote(), timeout=120)["kinds"] == [("noted", "ObjectRef")]


def test_a_set_that_nobody_has_is_missing_before_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="cifar10 is not in"):
        sharing.arrays_of([TrialConfig(data=DataConfig(name="cifar10"))], tmp_path)


def test_a_store_that_is_full_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise ray.exceptions.OutOfDiskError("no space left on device")

    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(SnnSweepError, match=r"'digits' with 0.0 GiB does not fit .* --object-store-memory"):
        sharing.arrays_of([TrialConfig()], tmp_path)
