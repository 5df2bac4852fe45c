"""Which images a trial saw, in a form that two trials can be compared by."""

import hashlib
from collections.abc import Iterable
from typing import Any

from snnsweep.config import TrialConfig
from snnsweep.data.splits import Data, Split, source

SEARCHED = ("train", "validation")  # the splits that a trial of a search sees


def identities(config: TrialConfig, data: Data, splits: Iterable[str] = SEARCHED) -> list[dict[str, Any]]:
    """What each split is, as JSON: `name` of the set, `split`, `samples`, `shape` of one, `classes`, `digest`, `given`.

    `given` are the values of the keys that the set's arrays depend on, and `data.subset` where it was given.
    """
    name, needs = source(config)
    given = dict(needs) | ({"subset": config.data.subset} if config.data.subset is not None else {})
    return [
        {
            "name": name,
            "split": split,
            "samples": len(part := getattr(data, split)),
            "shape": list(part.x.shape[1:]),
            "classes": data.spec.classes,
            "digest": digest(part),
            "given": given,
        }
        for split in splits
    ]


def digest(split: Split) -> str:
    """16 hex digits of the SHA-256 of the samples and labels in their order, as uint8 [N, ...] and int64 [N]."""
    found = hashlib.sha256()
    for tensor in (split.x, split.y):
        array = tensor.cpu().contiguous().numpy()
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.data.cast("B"))
    return found.hexdigest()[:16]
