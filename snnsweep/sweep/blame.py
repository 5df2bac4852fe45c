"""Whose fault an error is: the trial's own, which would come again and ends it, or the machine's, which does not.

What the machine did is no fact about a variant: Ray tries the trial elsewhere from its last checkpoint, and where all
tries are used up, the trial has not ended, and a resumed sweep goes on with it.
"""

from pyarrow import ArrowException
from ray.exceptions import RayError
from torch import AcceleratorError, OutOfMemoryError

from snnsweep.errors import MissingData, SnnSweepError

OWN = "device-side assert"  # of a kernel that checks what it is given, such as an index: what the trial's code gives it


class MachineFault(SnnSweepError):
    """Something of the machine's, the disk's or the bucket's that was met in a trial."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's memory did not suffice: torch's allocator says so, or CUDA itself."""
    told_by_cuda = isinstance(error, AcceleratorError) and "out of memory" in str(error)
    return told_by_cuda or isinstance(error, OutOfMemoryError)


def is_the_machines(error: BaseException) -> bool:
    """Of what is raised while a trial builds, trains and attacks, with parts that the user's space may have brought.

    Torch's errors about a GPU are the machine's (broken memory, a lost device, an illegal access), but for lacking
    memory. After one of them its process cannot use the GPU any more. A data set that is not where it should be is no
    fault of who was to learn it.
    """
    if isinstance(error, AcceleratorError):
        return OWN not in str(error) and not ran_out_of_memory(error)
    return isinstance(error, RayError | MachineFault | MissingData)


def is_no_end(error: BaseException | None) -> bool:
    """Of what ended a trial's process from outside of that: no word, Ray's, or that of who stores checkpoints."""
    return error is None or is_the_machines(error) or isinstance(error, OSError | ArrowException | SnnSweepError)
