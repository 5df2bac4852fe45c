"""Data sets by name, as uint8 tensors that live whole on the trial's device: no worker processes, no PIL.

A data set is a class with `spec: ImageSpec` and `read(folder) -> Arrays`, registered under its name:

    @data.register("mine")
    class Mine: ...

`python -m snnsweep.data NAME --data-dir FOLDER` downloads one that is built in.
"""

from snnsweep.data.batches import batches, crop, flip
from snnsweep.data.sets import Arrays
from snnsweep.data.splits import Data, Split, default_folder, instance, load, read
from snnsweep.registry import datasets

register, get, names = datasets.register, datasets.get, datasets.names

__all__ = ["Arrays", "Data", "Split", "batches", "crop", "default_folder", "flip", "get", "instance", "load"]
__all__ += ["names", "read", "register"]
