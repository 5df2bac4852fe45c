"""Data sets by way of Ray's object store: read once, by the driver, and held once on each node."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from snnsweep import data
from snnsweep.config import TrialConfig
from snnsweep.data import Arrays, Source
from snnsweep.errors import SnnSweepError
from snnsweep.registry import datasets

Shared = dict[Source, "ray.ObjectRef[Arrays]"]


def arrays_of(configs: Iterable[TrialConfig], folder: Path) -> Shared:
    """Reads the data set of each config, once, into the object store; this process keeps no copy beside it.

    The references stay valid as long as this process is connected, and go to the workers inside of an argument: a
    bare reference would be resolved on the way.

    Raises:
        MissingData, UserError: as in `data.load`.
        SnnSweepError: the object store and the disk behind it are too small.
    """
    met = dict.fromkeys(data.source(config) for config in configs)
    # The other way round: what was read last, when the configs were checked, is still at hand.
    found = {source: _put(source, data.read(source.name, folder, **dict(source.given))) for source in reversed(met)}
    data.forget()
    return found


def install(shared: Shared, folder: Path) -> None:
    """Lets `data.load` of this process take those sets from the object store: views, fetched to this node when needed.

    What was installed before is replaced. To be called when the space's parts are registered; a set of which this
    process knows nothing is left out, and one that was not shared is read from `folder`. Where a set cannot be
    fetched, `data.load` raises ray's own RayError: the machine's fault and not the trial's.
    """
    data.forget()
    for source, reference in shared.items():
        if source.name in datasets.names():
            data.provide(source, folder, partial(_fetched, reference))


def _fetched(reference: "ray.ObjectRef[Arrays]") -> Arrays:
    return ray.get(reference)


def _put(source: Source, arrays: Arrays) -> "ray.ObjectRef[Arrays]":
    tidy = np.ascontiguousarray  # a reader would copy what is not
    whole = Arrays(
        tidy(arrays.train_x), tidy(arrays.train_y), tidy(arrays.test_x), tidy(arrays.test_y), spec=arrays.spec
    )
    try:
        return ray.put(whole)
    except (ObjectStoreFullError, OutOfDiskError) as error:
        size = (arrays.train_x.nbytes + arrays.test_x.nbytes) / 2**30
        raise SnnSweepError(
            f"data set {source.name!r} with {size:.1f} GiB does not fit into Ray's object store of this node; start "
            "Ray with more of it (ray start --object-store-memory=BYTES), or free the disk that it spills to"
        ) from error
