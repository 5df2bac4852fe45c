"""Index orders that keep every class in its share; fixed, never drawn from a trial's seed."""

import numpy as np
from numpy.typing import NDArray

SPLIT_SEED = 0  # all trials train, validate and test on the same images


def interleaved(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """All indices in a fixed random order in which every class is spread evenly from the first to the last."""
    shuffled = np.random.RandomState(SPLIT_SEED).permutation(len(y))  # numpy froze this stream; default_rng's may move
    place = np.empty(len(y))
    for label in np.unique(y):
        members = shuffled[y[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def stratified(y: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` indices, interleaved, each class in its share to within one (largest remainder)."""
    labels, sizes = np.unique(y, return_counts=True)
    take, remainder = np.divmod(count * sizes, len(y))
    take[np.argsort(-remainder, kind="stable")[: count - take.sum()]] += 1
    order = interleaved(y)
    chosen = np.zeros(len(y), dtype=bool)
    for label, number in zip(labels, take, strict=True):
        chosen[order[y[order] == label][:number]] = True
    return order[chosen[order]]
