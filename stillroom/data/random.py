"""Random numbers without a state: a hash of what they are for. Vectorised, and the same on every machine and version.

splitmix64's finaliser (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014,
https://doi.org/10.1145/2660193.2660195) is a one-to-one map of the whole numbers below 2^64 that looks random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BITS = np.uint64(2**63 - 1)
GOLDEN = 0x9E3779B97F4A7C15
MAX_ITEMS, MAX_EPOCHS = 2**40, 2**23


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, number by number."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def uniform(keys: ArrayLike, *, stream: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key: another stream, other numbers, independent of the first.

    Args:
        keys: [B] whole numbers.
        stream: what the number is for.
    """
    offset = np.uint64((stream + 1) * GOLDEN % 2**64)
    bits = mix(mix(np.atleast_1d(np.asarray(keys, dtype=np.int64)).view(np.uint64) + offset) ^ offset)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def key(seed: int, epoch: ArrayLike, item: ArrayLike) -> NDArray[np.int64]:
    """The key of an item's look in an epoch: equal keys mean equal pixels.

    One-to-one in (epoch, item) for a seed, so two looks never share a key. Not negative.

    Args:
        seed: of the run.
        epoch: [B] or one number, below 2^23.
        item: [B] or one number, below 2^40.
    """
    epochs, items = np.broadcast_arrays(np.atleast_1d(epoch), np.atleast_1d(item))
    if len(items) and (items.max() >= MAX_ITEMS or epochs.max() >= MAX_EPOCHS or min(items.min(), epochs.min()) < 0):
        raise ValueError(
            f"an item must be in 0..2^40 - 1 and an epoch in 0..2^23 - 1, got {items.max()}, {epochs.max()}"
        )
    packed = (epochs.astype(np.uint64) << np.uint64(40)) | items.astype(np.uint64)
    turned = packed ^ (mix(np.array([seed % 2**64], dtype=np.uint64)) & BITS)
    return _mix63(turned).view(np.int64)


def _mix63(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `mix`, one-to-one on the numbers below 2^63: odd factors and right shifts stay invertible there."""
    values = ((values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)) & BITS
    values = ((values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)) & BITS
    return values ^ (values >> np.uint64(31))


def permutation(length: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order [length] of an epoch: a pure function of its arguments."""
    return np.argsort(mix(key(seed, epoch, np.arange(length)).view(np.uint64)), kind="stable")


def spaced(length: int, count: int) -> NDArray[np.int64]:
    """`count` of 0..length-1, or all where there are fewer, evenly spread, ascending."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))
