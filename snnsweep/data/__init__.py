"""Data sets by name, as uint8 tensors that live whole on the trial's device: no worker processes.

A data set is a class with `spec: ImageSpec` and `read(folder) -> Arrays`, registered under its name:

    @data.register("mine")
    class Mine: ...

`needs`, a tuple of config keys, makes them arguments of `read`: `needs = ("encoder.time_steps",)` calls
`read(folder, time_steps=4)`. A set whose images are known only from its files has no `spec` and returns it in
`Arrays.spec`. `defaults` are values of other keys that hold where a trial gives none, and `present(folder) -> str` says
in a few words what is there, for a set that takes long to read.

`python -m snnsweep.data NAME --data-dir FOLDER` downloads one that is built in, or says where it is to be had.
"""

from snnsweep.data.batches import batches, batches_of_many, crop, flip
from snnsweep.data.identity import identities
from snnsweep.data.sets import Arrays
from snnsweep.data.splits import (
    Data,
    Source,
    Split,
    default_folder,
    forget,
    instance,
    load,
    present,
    provide,
    read,
    source,
    spec,
)
from snnsweep.registry import datasets

register, get, names = datasets.register, datasets.get, datasets.names

__all__ = [
    "Arrays",
    "Data",
    "Source",
    "Split",
    "batches",
    "batches_of_many",
    "crop",
    "default_folder",
    "flip",
    "forget",
]
__all__ += [
    "get",
    "identities",
    "instance",
    "load",
    "names",
    "present",
    "provide",
    "read",
    "register",
    "source",
    "spec",
]

from snnsweep.data import events as _events  # noqa: E402, F401  registers itself, as the next one does
from snnsweep.data import own as _own  # noqa: E402, F401
